package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/vhostvsock"
	"torno.internal/host/internal/vmm"
	"torno.internal/protocol/control"
)

// When memory is searched while a command runs: first soon, then at random moments about so far apart. With
// the search at the end it stays below what the broker allows.
const (
	firstProof = 2 * time.Second
	nextProof  = 15 * time.Second
	proofTime  = 2 * time.Minute // for one search
)

// A prover has a VM's memory searched while its command runs and at the end.
type prover struct {
	c       *client
	session string
	file    string // for the results as JSON; empty: none
	cancel  context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	vm     *vmm.VM
	proofs []control.Proof
	err    error
}

// watch begins to search vm's memory.
func (p *prover) watch(ctx context.Context, vm *vmm.VM) {
	ctx, p.cancel = context.WithCancel(ctx)
	p.done = make(chan struct{})
	p.vm = vm
	go func() {
		defer close(p.done)
		wait := firstProof
		for {
			select {
			case <-ctx.Done():
				return
			case <-vm.Done():
				return
			case <-time.After(wait/2 + rand.N(wait)):
				if p.greeted(ctx) {
					p.once(ctx)
					wait = nextProof
				}
			}
		}
	}()
}

// last searches once more; the VM still runs, and its command has ended.
func (p *prover) last(ctx context.Context) {
	p.cancel()
	<-p.done
	p.once(ctx)
}

// greeted reports whether the guest has said hello. Before that it holds nothing that a search could find.
func (p *prover) greeted(ctx context.Context) bool {
	var info control.SessionInfo
	err := p.c.do(ctx, "GET", control.PathSession+p.session, nil, &info)
	return err == nil && info.State != control.SessionWaiting
}

// once pauses the VM and has its memory searched.
func (p *prover) once(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	memory, err := p.vm.Device.Memory()
	if errors.Is(err, vhostvsock.ErrNoMemory) && ctx.Err() == nil {
		return // its kernel still boots; the search at the end will tell if that is all it ever does
	}
	if err != nil {
		p.fail(ctx, err)
		return
	}
	defer memory.Close()
	var proof control.Proof
	err = p.vm.Paused(func() error {
		var err error
		proof, err = p.c.prove(ctx, p.session, memory)
		return err
	})
	if err != nil {
		p.fail(ctx, err)
		return
	}
	p.proofs = append(p.proofs, proof)
}

// fail keeps the first error, unless it is that nobody wants to know any more.
func (p *prover) fail(ctx context.Context, err error) {
	if p.err == nil && !errors.Is(ctx.Err(), context.Canceled) {
		p.err = err
	}
}

// report prints what was found. The error says that nothing was proved, or worse.
func (p *prover) report(w io.Writer) error {
	if p.done != nil {
		p.cancel()
		<-p.done
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != "" {
		b, err := json.MarshalIndent(p.proofs, "", "  ")
		if err == nil {
			err = os.WriteFile(p.file, append(b, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	rows := make([][]string, 0, len(p.proofs))
	bad := 0
	for i, q := range p.proofs {
		if q.Outcome != control.ProofClean {
			bad++
		}
		rows = append(rows, []string{
			strconv.Itoa(i + 1), mebibytes(q.Size), mebibytes(q.Present), strconv.Itoa(q.Secrets), strconv.Itoa(q.Windows),
			fmt.Sprintf("%.2f s", q.Seconds), map[bool]string{true: "found", false: "missing"}[q.Control], string(q.Outcome),
		})
	}
	if len(rows) > 0 {
		if err := printTable(w, []string{"PROOF", "MEMORY", "PRESENT", "SECRETS", "WINDOWS", "TOOK", "CONTROL", "OUTCOME"}, rows); err != nil {
			return err
		}
	}
	switch {
	case p.err != nil:
		return fmt.Errorf("searching the VM's memory: %w", p.err)
	case len(p.proofs) == 0:
		return errors.New("the VM ended before its memory could be searched")
	case bad > 0:
		return &hintError{fmt.Errorf("%d of %d searches of the VM's memory were not clean", bad, len(p.proofs)), "torno audit tail; a leak suspends the session"}
	}
	return nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

// prove has the broker search memory for the secrets of a session. The descriptor goes beside the request's
// first byte, which package http knows nothing of.
func (c *client) prove(ctx context.Context, session string, memory *os.File) (control.Proof, error) {
	conn, err := dialOwn(ctx, c.socket)
	if err != nil {
		return control.Proof{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	request := "POST " + control.PathSession + session + "/prove HTTP/1.1\r\nHost: torno\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix([]byte(request), unix.UnixRights(int(memory.Fd())), nil)
	if err != nil {
		return control.Proof{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return control.Proof{}, errors.Join(ctx.Err(), err)
	}
	defer resp.Body.Close()
	d := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode != http.StatusOK {
		var e control.Error
		if err := d.Decode(&e); err != nil {
			return control.Proof{}, fmt.Errorf("the broker answers with status %d", resp.StatusCode)
		}
		return control.Proof{}, &e
	}
	var proof control.Proof
	return proof, d.Decode(&proof)
}
