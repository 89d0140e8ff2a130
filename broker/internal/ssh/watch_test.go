package ssh

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"
)

// handshake makes one SSH connection over TCP and returns what the server said, what was seen, and the session id.
func handshake(t testing.TB, host ssh.Signer, kex string) (said []byte, seen []Proof, session []byte) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			served <- err
			return
		}
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(host)
		conn, _, _, err := ssh.NewServerConn(c, config)
		if err == nil {
			_ = conn.Wait()
		}
		served <- nil
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tap := wiretap{c, NewWatch(func(p Proof) { seen = append(seen, p) }), &bytes.Buffer{}}
	config := &ssh.ClientConfig{User: "git", HostKeyCallback: ssh.FixedHostKey(host.PublicKey())}
	config.KeyExchanges = []string{kex}
	conn, _, _, err := ssh.NewClientConn(tap, "git.example.org:22", config)
	if err != nil {
		t.Fatal(err)
	}
	session = conn.SessionID()
	_ = conn.Close()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	return tap.all.Bytes(), seen, session
}

// The watch finds what the client was shown, for every kind of key exchange and of host key, however it is cut.
func TestWatchFindsTheProof(t *testing.T) {
	for _, c := range []struct{ kex, host string }{
		{"curve25519-sha256", "ed25519"}, {"ecdh-sha2-nistp256", "ecdsa"}, {"diffie-hellman-group14-sha256", "rsa"},
		{"mlkem768x25519-sha256", "ed25519"},
	} {
		host := newSigner(t, c.host)
		said, seen, session := handshake(t, host, c.kex)
		if len(seen) != 1 || verify(seen[0].HostKey, session, seen[0].Signature) != nil || !bytes.Equal(seen[0].HostKey, host.PublicKey().Marshal()) {
			t.Errorf("%v: %d proofs were seen, or they are not the server's", c, len(seen))
			continue
		}
		var bytewise []Proof
		w := NewWatch(func(p Proof) { bytewise = append(bytewise, p) })
		for i := range said {
			_, _ = w.Write(said[i : i+1])
		}
		if len(bytewise) != 1 || !bytes.Equal(bytewise[0].Signature, seen[0].Signature) {
			t.Errorf("%v: byte for byte %d proofs are seen", c, len(bytewise))
		}
		if w.buf != nil {
			t.Errorf("%v: %d bytes are held once it is over", c, len(w.buf))
		}
	}
}

// plain makes an unencrypted packet.
func plain(payload []byte) []byte {
	padding := 8 - (5+len(payload))%8
	if padding < 4 {
		padding += 8
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	return append(append(append(b, byte(padding)), payload...), make([]byte, padding)...)
}

func replyMessage(number byte) []byte {
	b := appendString([]byte{number}, []byte("host key"))
	return appendString(appendString(b, []byte("public")), []byte("signature"))
}

// What is no key exchange shows nothing, and costs a bounded amount of memory.
func TestWatchBadServers(t *testing.T) {
	version := []byte("hello\r\nSSH-2.0-x\r\n")
	after := func(packets ...[]byte) []byte { return append(bytes.Clone(version), bytes.Join(packets, nil)...) }
	kexInit := plain(append([]byte{msgKexInit}, make([]byte, 64)...))
	long := binary.BigEndian.AppendUint32(nil, maxPacket+1)
	for name, c := range map[string]struct {
		said []byte
		want int
	}{
		"control: a reply":       {after(kexInit, plain(replyMessage(msgKexReply))), 1},
		"control: of a group":    {after(kexInit, plain(replyMessage(msgGexReply))), 1},
		"ignored messages":       {after(plain([]byte{msgIgnore, 0}), plain(replyMessage(msgKexReply))), 1},
		"two replies":            {after(plain(replyMessage(msgKexReply)), plain(replyMessage(msgKexReply))), 1},
		"behind NEWKEYS":         {after(plain([]byte{msgNewKeys}), plain(replyMessage(msgKexReply))), 0},
		"behind a disconnect":    {after(plain([]byte{msgDisconnect}), plain(replyMessage(msgKexReply))), 0},
		"behind another message": {after(plain([]byte{50}), plain(replyMessage(msgKexReply))), 0},
		"a group":                {after(plain(appendString(appendString([]byte{msgKexReply}, []byte("p")), []byte("g")))), 0},
		"bytes behind":           {after(plain(append(replyMessage(msgKexReply), 0))), 0},
		"a long packet":          {after(append(long, make([]byte, 100)...)), 0},
		"no padding":             {after([]byte{0, 0, 0, 12, 3, 31, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), 0},
		"version 1":              {append([]byte("SSH-1.5-x\n"), plain(replyMessage(msgKexReply))...), 0},
		"no version":             {bytes.Repeat([]byte("line\n"), maxClear), 0},
		"no line":                {bytes.Repeat([]byte("x"), 2*maxClear), 0},
		"HTTP":                   {[]byte("HTTP/1.1 200 OK\r\n\r\n"), 0},
	} {
		seen := 0
		w := NewWatch(func(Proof) { seen++ })
		for b := c.said; len(b) > 0; {
			n, _ := w.Write(b[:min(len(b), 1000)])
			b = b[n:]
			if cap(w.buf) > 2*maxClear {
				t.Fatalf("%s: %d bytes are held", name, cap(w.buf))
			}
		}
		if seen != c.want {
			t.Errorf("%s: %d proofs, want %d", name, seen, c.want)
		}
	}
}

// FuzzWatch wants the same outcome however a server's words are cut.
func FuzzWatch(f *testing.F) {
	f.Add([]byte("SSH-2.0-x\r\n"), 3)
	f.Add(append([]byte("x\nSSH-2.0-x\r\n"), plain(replyMessage(msgKexReply))...), 7)
	said, _, _ := handshake(f, newSigner(f, "ed25519"), "curve25519-sha256")
	f.Add(said, 100)
	f.Fuzz(func(t *testing.T, said []byte, cut int) {
		if len(said) > maxClear {
			return
		}
		var whole, pieces []Proof
		_, _ = NewWatch(func(p Proof) { whole = append(whole, p) }).Write(said)
		w := NewWatch(func(p Proof) { pieces = append(pieces, p) })
		step := max(1, cut&0xff)
		for b := said; len(b) > 0; b = b[min(step, len(b)):] {
			_, _ = w.Write(b[:min(step, len(b))])
		}
		if len(whole) > 1 || len(whole) != len(pieces) {
			t.Fatalf("%d proofs whole, %d in pieces", len(whole), len(pieces))
		}
		for i := range whole {
			if !bytes.Equal(whole[i].Signature, pieces[i].Signature) || !bytes.Equal(whole[i].HostKey, pieces[i].HostKey) {
				t.Fatal("other proofs in pieces")
			}
		}
	})
}
