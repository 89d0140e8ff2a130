package redact

import "sync"

// A Cache shares Matchers between those who look for the same secrets. The zero value is empty. It is safe
// for concurrent use.
type Cache struct {
	mu       sync.Mutex
	matchers map[string]*shared
}

type shared struct {
	once  sync.Once // makes m
	m     *Matcher
	users int // guarded by the Cache
}

// Get returns the Matcher called key, made by secrets if nobody has it; who wants another one need not wait
// for that. Every Get is paired with a Put.
func (c *Cache) Get(key string, secrets func() []Secret) *Matcher {
	s := c.use(key)
	s.once.Do(func() { s.m = NewMatcher(secrets()) })
	return s.m
}

func (c *Cache) use(key string) *shared {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.matchers[key]
	if s == nil {
		if c.matchers == nil {
			c.matchers = map[string]*shared{}
		}
		s = &shared{}
		c.matchers[key] = s
	}
	s.users++
	return s
}

// Put gives back what Get returned. The last one wipes the Matcher.
func (c *Cache) Put(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.matchers[key]
	if s.users--; s.users == 0 {
		delete(c.matchers, key)
		s.m.Wipe()
	}
}
