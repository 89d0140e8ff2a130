package protocol

import "time"

// MaxDetached is for how long at most a proof that is handed out is good.
const MaxDetached = 5 * time.Minute

// DigestSize is the length in bytes of SignRequest.SHA256.
const DigestSize = 32

// A SignRequest asks for the proof that authorises one https request, which the machine sends by a way of its own. Nothing of
// it is sent by the broker.
type SignRequest struct {
	Method    string      `json:"method"`
	Authority string      `json:"authority"`        // host[:port]
	Path      string      `json:"path"`             // with the query, as it will be sent
	Fields    []SignField `json:"fields,omitempty"` // that go with it, in lower case; those that signatures may cover
	SHA256    []byte      `json:"sha256"`           // of its content; of nothing where it has none
}

// A SignField is one field of a request.
type SignField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A SignResponse is the proof: the request is authorised if it is sent as it was asked about, but for what stands here.
type SignResponse struct {
	Remove  []string    `json:"remove"`  // names of fields that must not go with it
	Fields  []SignField `json:"fields"`  // to be added
	Expires time.Time   `json:"expires"` // when no host takes it any more, as far as the scheme says that; MaxDetached at most
}
