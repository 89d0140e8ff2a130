package cli

import (
	"context"
	"fmt"
	"net"
	"time"

	"torno.internal/protocol/control"
)

// proxyTimeout bounds the trial of a proxy.
const proxyTimeout = 3 * time.Second

// checkProxy looks whether the proxy of broker.toml can be reached, if there is one.
func checkProxy(ctx context.Context, _ string) finding {
	dir, err := stateDir()
	if err != nil {
		return fail(err, "")
	}
	operator, err := readOperator("", dir)
	if err != nil {
		return fail(err, "torno serve would not start either")
	}
	if operator.Egress.Proxy == "" {
		return ok("none, upstreams are reached directly")
	}
	a, err := control.ParseProxy(operator.Egress.Proxy)
	if err != nil {
		return fail(err, "")
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return fail(fmt.Errorf("%s does not answer: %w", operator.Egress.Proxy, err), "see [egress] proxy in broker.toml")
	}
	_ = c.Close()
	return ok("%s answers", operator.Egress.Proxy)
}
