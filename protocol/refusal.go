package protocol

import "strconv"

// Refusal returns the response by which the broker, or the guest when the broker is gone, refuses an
// exchange, and its content.
func Refusal(r Reason) (Response, []byte) {
	content := r.String() + ": " + r.Advice() + "\n"
	return Response{
		Status: r.Status(),
		Fields: Fields{
			{Name: FieldReason, Value: r.String()},
			{Name: "content-type", Value: "text/plain; charset=utf-8"},
			{Name: "content-length", Value: strconv.Itoa(len(content))},
			{Name: "cache-control", Value: "no-store"},
		},
	}, []byte(content)
}
