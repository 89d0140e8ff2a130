package front

import (
	"fmt"
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// authority returns the one authority that a request is for. What TLS or CONNECT named, the target's
// absolute form, the Host field and the dialled port must all agree (RFC 9110 §7.4); its error is a
// *protocol.RefusedError.
func (c *conn) authority(head *http1.RequestHead) (protocol.Authority, error) {
	var none protocol.Authority
	if head.Scheme != "" && head.Scheme != c.scheme && !(c.proxy && head.Scheme == "http") {
		return none, protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("scheme %q on a connection for %s", head.Scheme, c.scheme))
	}
	port := c.port
	if port == 0 {
		port = protocol.DefaultPort(c.scheme)
	}
	host := head.Host
	if host == "" { // HTTP/1.0 in absolute form
		host = head.Authority
	}
	a, err := protocol.ParseAuthority(host, port)
	if err != nil {
		return none, protocol.Refuse(protocol.ReasonBadAuthority, err)
	}
	if head.Authority != "" {
		target, err := protocol.ParseAuthority(head.Authority, port)
		if err != nil {
			return none, protocol.Refuse(protocol.ReasonBadAuthority, err)
		}
		if target != a {
			return none, protocol.Refuse(protocol.ReasonMisdirected, fmt.Errorf("target for %v, Host for %v", target, a))
		}
	} else if c.proxy {
		return none, protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("a proxy needs the absolute form, not %q", head.Target))
	}
	switch {
	case c.name != "" && a.Host != c.name:
		return none, protocol.Refuse(protocol.ReasonMisdirected, fmt.Errorf("connection for %q, request for %v", c.name, a))
	case c.connect != "" && a.Host != c.connect:
		return none, protocol.Refuse(protocol.ReasonMisdirected, fmt.Errorf("CONNECT to %q, request for %v", c.connect, a))
	case c.port != 0 && a.Port != c.port:
		return none, protocol.Refuse(protocol.ReasonMisdirected, fmt.Errorf("connection to port %d, request for %v", c.port, a))
	}
	return a, nil
}

// unnominable are fields that Connection may not nominate: taken away at this hop, they would leave a
// request that means something else than its sender believes.
var unnominable = map[string]bool{
	"authorization": true, "proxy-authorization": true, "x-api-key": true, "cookie": true, "host": true,
	"content-length": true, "content-type": true, "content-encoding": true, "transfer-encoding": true,
	"range": true, "expect": true, "x-forwarded-for": true, "trailer": true,
}

// checkConnection refuses a Connection field that nominates one of them.
func checkConnection(f protocol.Fields) error {
	for _, l := range f {
		if l.Name != "connection" {
			continue
		}
		for option := range strings.SplitSeq(l.Value, ",") {
			if option = strings.ToLower(strings.Trim(option, " \t")); unnominable[option] {
				return protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("connection nominates %q", option))
			}
		}
	}
	return nil
}

// request makes c.req the request as it goes to the broker, in the memory of head's fields. Its error is a
// *protocol.RefusedError.
func (c *conn) request(head *http1.RequestHead) error {
	switch {
	case head.Method == "CONNECT":
		return protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("CONNECT to something that is no proxy"))
	case head.Method == "TRACE":
		return protocol.Refuse(protocol.ReasonUnsupported, fmt.Errorf("TRACE"))
	case head.Upgrade != "" && head.Upgrade != "h2c" && head.Upgrade != upgradeWebSocket: // h2c may be ignored, and every client goes on
		return protocol.Refuse(protocol.ReasonUnsupported, fmt.Errorf("upgrade to %q", head.Upgrade))
	case !strings.HasPrefix(head.Path, "/"):
		return protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("path %q", head.Path))
	}
	if err := checkConnection(head.Fields); err != nil {
		return err
	}
	a, err := c.authority(head)
	if err != nil {
		return err
	}
	f := http1.StripConnection(head.Fields).DelFunc(func(l protocol.Field) bool {
		return isOwn(l) || l.Name == "http2-settings" || c.proxy && l.Name == "proxy-authorization"
	})
	if c.http2 {
		f = append(f, protocol.Field{Name: protocol.FieldHTTP, Value: "2"})
	}
	if c.dialled.IsValid() {
		f = append(f, protocol.Field{Name: protocol.FieldDialled, Value: c.dialledText})
	}
	c.req = protocol.Request{Method: head.Method, Scheme: c.scheme, Authority: c.text(a), Path: head.Path, Fields: f}
	return nil
}

// text returns a as the broker reads it. Most connections ask for one authority, so the last is kept.
func (c *conn) text(a protocol.Authority) string {
	if a != c.last {
		c.last = protocol.Authority{Host: strings.Clone(a.Host), Port: a.Port}
		c.lastText = c.last.String()
	}
	return c.lastText
}

// isOwn reports whether a field is one that guest and broker alone may say.
func isOwn(l protocol.Field) bool { return strings.HasPrefix(l.Name, "torno-") }
