package upstream

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"torno.internal/protocol"
)

// Limits on the connections that are kept.
const (
	maxIdleConns    = 64                                            // idle, of one pool key
	maxSessionConns = protocol.MaxStreams + protocol.MaxIdleStreams // open, of one session, idle ones and tunnels included
	maxOrigins      = 128                                           // pool keys of one session whose TLS tickets are kept
	idleTimeout     = 90 * time.Second                              // how long a connection is kept idle
)

// A pool keeps connections apart by session and, within one, by scheme and authority.
type pool struct {
	newOrigin func(PoolKey) *origin

	mu       sync.Mutex
	closed   bool
	sessions map[string]*session
	sweeper  *time.Timer    // nil while nothing is idle
	sweeps   sync.WaitGroup // what sweeper started
	readers  sync.WaitGroup // of HTTP/2 connections; each ends with its connection
}

// A session holds what one session has open. The pool's mu guards it.
type session struct {
	origins map[PoolKey]*origin
	open    map[aborter]*origin // connections and tunnels, in use or not
	places  int                 // len(open) and the dials under way
	allow   []netip.Prefix
	closed  bool
}

// An aborter is a connection that can be cut from any goroutine.
type aborter interface{ abort() }

// An origin is the other end of one pool key. The pool's mu guards idle, places and closed.
type origin struct {
	key     PoolKey
	host    string // the Host field
	session *session
	tls     *tls.Config // nil for plain TCP
	idle    []*conn     // newest last
	places  int         // connections open and dials under way
	closed  bool        // another has taken its place
}

var (
	errClosed        = protocol.Refuse(protocol.ReasonBrokerUnavailable, errors.New("upstream client is closed"))
	errSessionClosed = protocol.Refuse(protocol.ReasonSessionEnded, errors.New("session's connections are closed"))
	errFull          = protocol.Refuse(protocol.ReasonStreamsExhausted, errors.New("session has too many upstream connections"))
)

func (c *Client) newOrigin(key PoolKey) *origin {
	o := &origin{key: key, host: HostField(key.Scheme, key.Authority)}
	if key.Scheme == "https" {
		o.tls = c.tlsConfig(key)
	}
	return o
}

// HostField returns the Host field's value: the authority, its port left out where it is the scheme's
// own (RFC 9110 §7.2, §4.2.3).
func HostField(scheme string, a protocol.Authority) string {
	s := a.String()
	if a.Port == protocol.DefaultPort(scheme) {
		s = s[:strings.LastIndexByte(s, ':')]
	}
	return s
}

func (p *pool) init(newOrigin func(PoolKey) *origin) {
	p.newOrigin = newOrigin
	p.sessions = make(map[string]*session)
}

// session returns the session called id; mu is held.
func (p *pool) session(id string) *session {
	s := p.sessions[id]
	if s == nil {
		s = &session{origins: make(map[PoolKey]*origin), open: make(map[aborter]*origin)}
		p.sessions[id] = s
	}
	return s
}

func (p *pool) allowPrivate(id string, prefixes []netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session(id).allow = slices.Clone(prefixes)
}

// allowed returns the session's exemptions from the guard.
func (p *pool) allowed(o *origin) []netip.Prefix {
	p.mu.Lock()
	defer p.mu.Unlock()
	return o.session.allow
}

// take returns the newest idle connection of key, or nil where there is none.
func (p *pool) take(key PoolKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[key.Session]
	if s == nil {
		return nil
	}
	o := s.origins[key]
	if o == nil || len(o.idle) == 0 {
		return nil
	}
	last := len(o.idle) - 1
	c := o.idle[last]
	o.idle[last] = nil
	o.idle = o.idle[:last]
	return c
}

// reserve returns the origin of key with a place for a new connection, which attach fills and
// unreserve gives back. Where the session has no place left its oldest idle connection goes.
func (p *pool) reserve(key PoolKey) (*origin, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	s := p.session(key.Session)
	if s.places >= maxSessionConns && !p.evict(s) {
		return nil, errFull
	}
	o := s.origins[key]
	if o == nil {
		o = p.newOrigin(key)
		o.session = s
		s.origins[key] = o
	}
	o.places++
	s.places++
	return o, nil
}

// evict closes the session's connection that has been idle longest; mu is held.
func (p *pool) evict(s *session) bool {
	var oldest *conn
	for _, o := range s.origins {
		if len(o.idle) > 0 && (oldest == nil || o.idle[0].expires.Before(oldest.expires)) {
			oldest = o.idle[0]
		}
	}
	if oldest == nil {
		return false
	}
	oldest.origin.idle = slices.Delete(oldest.origin.idle, 0, 1)
	p.remove(oldest.origin, oldest)
	oldest.abort()
	return true
}

// attach puts a new connection into the place that take reserved. If the session has ended in the
// meantime the connection is closed.
func (p *pool) attach(o *origin, c aborter) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.session.closed || o.closed {
		c.abort()
		if o.closed {
			p.release(o)
		}
		return errSessionClosed
	}
	o.session.open[c] = o
	if cn, ok := c.(*conn); ok && cn.h2 != nil {
		p.readers.Go(cn.h2.run)
	}
	return nil
}

// window returns how much unread content an HTTP/2 connection of o may hold: little where the session has many, for it
// is memory of ours that an upstream fills and a workload keeps filled.
func (p *pool) window(o *origin) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.session.places > h2Crowd {
		return h2DefaultWindow
	}
	return h2Window
}

// unreserve gives back a place that take reserved.
func (p *pool) unreserve(o *origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(o)
}

// put keeps c for the next exchange, if it may be.
func (p *pool) put(c *conn, keep time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := c.origin
	if o.session.closed || o.closed || len(o.idle) >= maxIdleConns || keep <= 0 {
		p.remove(o, c)
		c.abort()
		return
	}
	c.expires = time.Now().Add(min(keep, idleTimeout))
	o.idle = append(o.idle, c)
	if p.sweeper == nil {
		p.arm()
	}
}

// drop closes a connection that is not idle.
func (p *pool) drop(c *conn) {
	p.forgetOpen(c.origin, c)
	c.abort()
}

// forgetOpen takes c out of the books; whoever calls closes it.
func (p *pool) forgetOpen(o *origin, c aborter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(o, c)
}

// remove gives back the place of c, once; mu is held.
func (p *pool) remove(o *origin, c aborter) {
	if _, ok := o.session.open[c]; ok {
		delete(o.session.open, c)
		p.release(o)
	}
}

// release gives back one place; mu is held.
func (p *pool) release(o *origin) {
	o.places--
	o.session.places--
	p.forget(o)
}

// forget drops an origin without connections, and its tickets with it, where the session has many:
// names are the workload's to choose. mu is held.
func (p *pool) forget(o *origin) {
	if o.places == 0 && !o.closed && len(o.session.origins) > maxOrigins {
		delete(o.session.origins, o.key)
	}
}

// sweep comes back while connections are idle.
func (p *pool) sweep() {
	defer p.sweeps.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweeper = nil
	if p.expire(time.Now()) > 0 && !p.closed {
		p.arm()
	}
}

// arm lets sweep come by; mu is held.
func (p *pool) arm() {
	p.sweeps.Add(1)
	p.sweeper = time.AfterFunc(idleTimeout/2, p.sweep)
}

// expire closes the idle connections whose time is over and returns how many stay; mu is held.
func (p *pool) expire(now time.Time) int {
	idle := 0
	for _, s := range p.sessions {
		for _, o := range s.origins {
			o.idle = slices.DeleteFunc(o.idle, func(c *conn) bool {
				if now.Before(c.expires) {
					return false
				}
				p.remove(o, c)
				c.abort()
				return true
			})
			idle += len(o.idle)
		}
	}
	return idle
}

// cutSession closes what a session has open and forgets its tickets.
func (p *pool) cutSession(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sessions[id]; s != nil {
		s.close()
		delete(p.sessions, id)
		p.session(id).allow = s.allow
	}
}

// cutOrigins closes what a session has open to some authorities and forgets these tickets.
func (p *pool) cutOrigins(id string, to []protocol.Authority) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[id]
	if s == nil {
		return
	}
	for c, o := range s.open {
		if slices.Contains(to, o.key.Authority) {
			c.abort()
		}
	}
	for key, o := range s.origins {
		if !slices.Contains(to, key.Authority) {
			continue
		}
		o.closed = true
		delete(s.origins, key)
		for _, c := range o.idle {
			p.remove(o, c)
		}
		o.idle = nil
	}
}

// closeSession closes what a session has open and forgets it altogether.
func (p *pool) closeSession(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sessions[id]; s != nil {
		s.close()
		delete(p.sessions, id)
	}
}

// close cuts everything; the pool's mu is held. Places are given back as exchanges and tunnels end.
func (s *session) close() {
	s.closed = true
	for c := range s.open {
		c.abort()
	}
	for _, o := range s.origins {
		for _, c := range o.idle {
			delete(s.open, c)
		}
		o.idle = nil
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for id, s := range p.sessions {
		delete(p.sessions, id)
		s.close()
	}
	if p.sweeper != nil && p.sweeper.Stop() {
		p.sweeps.Done()
	}
	p.sweeper = nil
	p.mu.Unlock()
	p.sweeps.Wait()
	p.readers.Wait()
}
