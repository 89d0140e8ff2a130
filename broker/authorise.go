package broker

import (
	"errors"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
)

// authorised strips what the workload sent of the credential's own fields and calls write with ours.
func (x *exchange) authorised(write func([]credential.Field) error) error {
	if x.use == nil {
		return write(nil)
	}
	var fields []credential.Field
	if x.bare {
		x.req.Path = x.use.StripTarget(x.req.Path)
	} else {
		var err error
		if fields, err = x.use.Fields(x.req); err != nil {
			return refusal(err)
		}
	}
	defer func() {
		for _, f := range fields {
			f.Value.Wipe()
		}
	}()
	x.req.Fields = x.use.StripFields(x.req.Fields)
	return write(fields)
}

// refusal returns err, as our own fault where it says no reason.
func refusal(err error) error {
	var r *protocol.RefusedError
	if errors.As(err, &r) {
		return err
	}
	return protocol.Refuse(protocol.ReasonInternal, err)
}
