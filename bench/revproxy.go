package main

import (
	"flag"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// serveReverseProxy is the second yardstick: what the standard library does at its best. It prints its
// address and ends with its standard input.
func serveReverseProxy(args []string) error {
	flags := flag.NewFlagSet("revproxy", flag.ContinueOnError)
	cert := flags.String("cert", "", "certificate")
	key := flags.String("key", "", "its key")
	ca := flags.String("ca", "", "CA of the upstream")
	upstream := flags.String("upstream", "", "address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	server, err := serverTLS(*cert, *key)
	if err != nil {
		return err
	}
	client, err := clientTLS(*ca)
	if err != nil {
		return err
	}
	target := &url.URL{Scheme: "https", Host: *upstream}
	return serveUntilEOF(server, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = upstreamHost
			r.Out.Header.Set("Authorization", "Bearer "+credential)
		},
		Transport: &http.Transport{
			TLSClientConfig: client, MaxIdleConns: 1024, MaxIdleConnsPerHost: 256, IdleConnTimeout: 5 * time.Minute,
			DisableCompression: true,
		},
		BufferPool: &buffers{},
	})
}

// buffers are ReverseProxy's own size.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
