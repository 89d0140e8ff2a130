package mint

import (
	"errors"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol/control"
)

// leeway is for how long verifiers may take a token that has expired, since clocks differ.
const leeway = 2 * time.Minute

// A local grant makes its tokens itself: nobody is called.
type local interface {
	make(value []byte, now time.Time) (*answered, error)
}

// selfSigned makes JWTs (RFC 7519) that the secret signs.
type selfSigned struct{ spec *control.JWT }

func (selfSigned) id() bool { return false }

func (selfSigned) kind() string { return typeBearer }

func (selfSigned) request([]byte, string, time.Time) (*Request, error) {
	return nil, errors.New("no token endpoint is called for a JWT of one's own")
}

func (g selfSigned) make(value []byte, now time.Time) (*answered, error) {
	j, err := sign.NewJWT(g.spec, &sign.Request{}, now)
	if err != nil {
		return nil, err
	}
	token, err := j.Sign(value)
	if err != nil {
		return nil, err
	}
	expires, _ := j.Claims["exp"].(int64)
	life := time.Unix(expires, 0).Sub(now)
	return &answered{access: token, life: life, worth: life + leeway}, nil
}
