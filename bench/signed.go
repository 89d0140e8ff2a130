package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"
)

// A secret that signs is bound to signedPort of the upstream's name.
const (
	signedPort = 8443
	signingID  = "AKIABENCHSIGNER00001"
	chunkSize  = 64 << 10
)

// signed uploads the same bytes in turns: where they pass, and where every chunk is signed anew.
func (l *load) signed(c command) (reply, error) {
	var r reply
	chunk := fmt.Appendf(nil, "%x;chunk-signature=%s\r\n", chunkSize, strings.Repeat("0", 64))
	chunk = append(append(chunk, bytes.Repeat([]byte("some text of a file that goes up. "), 2000)[:chunkSize]...), "\r\n"...)
	end := []byte("0;chunk-signature=" + strings.Repeat("0", 64) + "\r\n\r\n")
	chunks := c.Bytes / chunkSize
	length := chunks*int64(len(chunk)) + int64(len(end))
	day := time.Now().UTC().Format("20060102")
	fields := fmt.Sprintf("Authorization: AWS4-HMAC-SHA256 Credential=own/%s/eu-central-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=%s\r\n"+
		"X-Amz-Date: %sT000000Z\r\nX-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\nX-Amz-Decoded-Content-Length: %d\r\n",
		day, strings.Repeat("0", 64), day, chunks*chunkSize)
	for range c.Count {
		for _, host := range []string{upstreamHost, fmt.Sprint(upstreamHost, ":", signedPort)} {
			t, more := c.Target, ""
			if host != upstreamHost {
				t.Dial, more = host, fields
			}
			began := monotonic()
			if err := l.chunked(t, requestTo(host, more, "POST", "/up", length), chunk, end, chunks, length); err != nil {
				return r, err
			}
			r.Latency = append(r.Latency, monotonic()-began)
		}
	}
	r.Count = int64(c.Count)
	return r, nil
}

// chunked makes one upload of chunks on a connection of its own.
func (l *load) chunked(t target, head, chunk, end []byte, chunks, length int64) error {
	k, err := dial(context.Background(), t, l.config)
	if err != nil {
		return err
	}
	defer k.close()
	if err := k.begin(head); err != nil {
		return err
	}
	for range chunks {
		if _, err := k.nc.Write(chunk); err != nil {
			return err
		}
	}
	if _, err := k.nc.Write(end); err != nil {
		return err
	}
	if err := k.answer(); err != nil {
		return err
	}
	b, err := k.next()
	if err == nil && string(b) != fmt.Sprint(length) {
		err = fmt.Errorf("upstream got %q bytes, want %d", b, length)
	}
	return err
}

// signed measures what signing anew leaves of an upload's rate. Nobody but torno does it.
func (m *meter) signed(ctx context.Context, s *subject) error {
	if s.target.Name != nameTorno {
		return nil
	}
	r, err := s.call(ctx, command{Op: opSigned, Count: 2*m.bulks + 1, Bytes: bulkSize})
	if err != nil {
		return err
	}
	var rates []float64
	for i := 0; i+1 < len(r.Latency); i += 2 {
		rates = append(rates, 100*float64(r.Latency[i])/float64(r.Latency[i+1]))
	}
	m.figures.add(keySigned, s, median(rates))
	return nil
}
