package workload

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/guest/internal/capture"
	"torno.internal/guest/internal/nstest"
	"torno.internal/guest/internal/workspace"
	"torno.internal/protocol"
	archive "torno.internal/protocol/workspace"
)

// openWorkspace makes an empty workspace at /tmp/w.
func openWorkspace(t *testing.T) *workspace.Workspace {
	t.Helper()
	w := &workspace.Workspace{Owner: AgentID}
	for path, root := range map[string]**os.Root{"/tmp/w": &w.Dir, "/tmp/notes": &w.Notes} {
		err := errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o755), os.Chown(path, AgentID, AgentID))
		if err == nil {
			*root, err = os.OpenRoot(path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// The workload finds what the host sent, and the host gets what it changed, before the exit, however it ended.
func TestWorkspace(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		var in bytes.Buffer
		w := archive.NewWriter(&in)
		err := errors.Join(w.Add(&archive.Entry{Name: "a", Kind: archive.File, Size: 2}))
		if err == nil {
			_, err = io.WriteString(w, "hi")
		}
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			script string
			in     []byte
			want   protocol.Exit
			out    []string
		}{
			"changes":    {"cat a; echo more >>a; mkdir d; exit 3", in.Bytes(), protocol.Exit{Code: 3}, []string{"a", "d/"}},
			"is killed":  {"rm a; kill -KILL $$", in.Bytes(), protocol.Exit{Code: 137, Signal: "KILL"}, []string{"a"}},
			"nothing":    {"true", in.Bytes(), protocol.Exit{}, nil},
			"broken off": {"true", in.Bytes()[:600], protocol.Exit{Code: 125, Error: "workspace: malformed workspace archive: it ends in the middle"}, nil},
		} {
			h := newHost(t, strings.NewReader(""))
			h.workspace = c.in
			ended := make(chan protocol.Exit, 1)
			work := shell(c.script)
			work.Dir = "/tmp/w"
			config := Config{Workload: work, Channel: h.channel(), PID1: true, Log: slog.New(slog.DiscardHandler), Workspace: openWorkspace(t)}
			go func() { ended <- Run(t.Context(), config) }()
			exit := <-ended
			if diff := cmp.Diff(c.want, exit); diff != "" {
				t.Errorf("%s: exit (-want +got):\n%s", name, diff)
			}
			h.mu.Lock()
			order, back := h.finished, h.back.Bytes()
			h.mu.Unlock()
			if c.want.Code != 125 && order[protocol.PathWorkspaceOut] != order[protocol.PathExit]-1 {
				t.Errorf("%s: order of ends: %v, want the workspace before the exit", name, order)
			}
			if diff := cmp.Diff(c.out, namesIn(t, back)); diff != "" {
				t.Errorf("%s: (-want +got):\n%s", name, diff)
			}
		}
	})
}

func namesIn(t *testing.T, b []byte) (names []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// A published port leads to the server by either loopback address; where none listens the stream breaks off.
func TestPublish(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		if err := capture.Up(); err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
			ln, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					b, _ := io.ReadAll(c)
					_, _ = c.Write(bytes.ToUpper(b))
					c.Close()
				}
			}()
			h := newHost(t, strings.NewReader("hello"))
			port := uint16(ln.Addr().(*net.TCPAddr).Port)
			if err := h.channel().publish(t.Context(), port, 7); err != nil {
				t.Errorf("%s: %v", address, err)
			}
			if got := h.served(); got != "HELLO" {
				t.Errorf("%s: the client gets %q", address, got)
			}
			ln.Close()
			if err := h.channel().publish(t.Context(), port, 8); err == nil {
				t.Errorf("%s: nobody listens, and no error", address)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		ln, err := net.Listen("tcp", "127.0.0.1:0") // never accepts: the workload ends first
		if err != nil {
			t.Fatal(err)
		}
		h := newHost(t, iotestNever{})
		_ = h.channel().publish(ctx, uint16(ln.Addr().(*net.TCPAddr).Port), 9) // returns
	})
}
