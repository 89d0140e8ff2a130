package sign

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// BenchmarkSigned plans and signs one small request in each scheme, as an exchange does, and reports the processor's time: that of the
// machine's other users is not in it.
func BenchmarkSigned(b *testing.B) {
	edKey, _ := testKey(b, "ed25519")
	small := protocol.Fields{{Name: "content-type", Value: "application/json"}, {Name: "user-agent", Value: "x"}, {Name: "accept", Value: "*/*"}}
	aws := append(small.Clone(), claimed(scope{"eu-central-1", "s3"}, "host;x-amz-content-sha256;x-amz-date"),
		protocol.Field{Name: "x-amz-date", Value: "20261128T000000Z"}, protocol.Field{Name: "x-amz-content-sha256", Value: emptyHash})
	for _, c := range []struct {
		name, as, value string
		fields          protocol.Fields
		content         string
	}{
		{"sigv4", "sigv4:service=s3,region=eu-central-1", testID + ":" + testSecret, aws, ""},
		{"sigv4a", "sigv4:service=s3,regions=*", testID + ":" + testSecret, append(asymmetric("*"), protocol.Field{Name: "x-amz-content-sha256", Value: emptyHash}), ""},
		{"hmac", "hmac:preset=stripe", hookKey, small, `{"id":"evt_1","object":"event"}`},
		{"hmac query", "hmac:preset=binance", "id1:" + hookKey, small, ""},
		{"azure-storage", "azure-storage:account=myaccount", azureKey, small, ""},
		{"rfc9421 ed25519", "rfc9421:alg=ed25519,keyid=k1", edKey, small, `{"id":"evt_1","object":"event"}`},
		{"jwt-request HS256", `jwt-request:alg=HS256,kid=k1,iss=me,claims={"req":"{method} {url}"}`, hookKey, small, ""},
		{"rfc9421 hmac-sha256", "rfc9421:alg=hmac-sha256,keyid=k1", hookKey, small, `{"id":"evt_1","object":"event"}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, value := newTestSigner(b, c.as), secret.New([]byte(c.value))
			r := &Request{Method: "POST", Host: "api.example.org", Target: "/v1/orders?symbol=LTCBTC&side=BUY", Fields: c.fields, Content: []byte(c.content), Whole: true}
			out := *r
			out.Fields = r.Fields.Clone().DelFunc(func(f protocol.Field) bool { return s.Strip(f.Name) })
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			began := threadTime()
			for b.Loop() {
				p, err := s.Plan(r)
				if err != nil {
					b.Fatal(err)
				}
				proof, err := p.Sign(value, &out, testNow)
				if err != nil {
					b.Fatal(err)
				}
				for _, f := range proof.Fields {
					f.Value.Wipe()
				}
			}
			b.ReportMetric(float64(threadTime()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

// threadTime returns the thread's CPU time in nanoseconds.
func threadTime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}
