package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"torno.internal/protocol/control"
)

// A specimen is the state directory of a store that is large enough for trees of several levels and for pages that
// overflow, and what stands in it.
type specimen struct {
	key, data []byte
	values    map[string]string // as sealed, by agent and name
	sessions  map[string]string
}

const specimenPage = 4096

func newSpecimen(t testing.TB) *specimen {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	p := &specimen{values: map[string]string{}, sessions: map[string]string{}}
	for a := range 4 {
		var all []control.SealedSecret
		for i := range 12 {
			agent, name := fmt.Sprintf("agent-%d", a), fmt.Sprintf("KEY_%02d", i)
			v := strings.Repeat(fmt.Sprintf("%s of %s ", name, agent), 1+i*i*i/4)
			all = append(all, sealed(t, s, agent, name, 1, v))
			p.values[agent+" "+name] = string(all[i].Sealed)
		}
		set(t, s, all...)
	}
	for i := range 40 {
		id := fmt.Sprintf("session%02d", i)
		p.sessions[id] = strings.Repeat(id, 8)
		if err := s.PutSession(id, []byte(p.sessions[id])); err != nil {
			t.Fatal(err)
		}
	}
	s.Counter("agent-1", "KEY_01", 1).Used(time.Unix(9, 0))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p.key, p.data = readFile(t, filepath.Join(dir, "key")), readFile(t, filepath.Join(dir, dataFile))
	return p
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put makes a state directory of the specimen with other data.
func (p *specimen) put(t testing.TB, dir string, data []byte) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "key"), p.key, 0o600),
		os.WriteFile(filepath.Join(dir, dataFile), data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// A damage is done to a file of so many pages; it returns what is left.
type damage struct {
	name string
	do   func(b []byte, page int) []byte
}

func damages(rnd *rand.Rand) []damage {
	at := func(b []byte, page int) []byte { return b[page*specimenPage : (page+1)*specimenPage] }
	flips := func(n, within int) func([]byte, int) []byte {
		return func(b []byte, page int) []byte {
			for range n {
				at(b, page)[rnd.IntN(within)] ^= 1 << rnd.IntN(8)
			}
			return b
		}
	}
	return []damage{
		{"a bit", flips(1, specimenPage)},
		{"a bit of the header", flips(1, pageHeader)},
		{"a bit of the first elements", flips(1, pageHeader+8*elementSize)},
		{"bytes of the elements", flips(6, pageHeader+16*elementSize)},
		{"many bits", flips(200, specimenPage)},
		{"zeros", func(b []byte, page int) []byte { clear(at(b, page)); return b }},
		{"ones", func(b []byte, page int) []byte { copy(at(b, page), bytes.Repeat([]byte{0xff}, specimenPage)); return b }},
		{"half of it zeros", func(b []byte, page int) []byte { clear(at(b, page)[specimenPage/2:]); return b }},
		{"another page", func(b []byte, page int) []byte { copy(at(b, page), at(b, rnd.IntN(len(b)/specimenPage))); return b }},
		{"another page under its number", func(b []byte, page int) []byte {
			copy(at(b, page)[8:], at(b, rnd.IntN(len(b)/specimenPage))[8:])
			return b
		}},
		{"two pages swapped", func(b []byte, page int) []byte {
			other := at(b, rnd.IntN(len(b)/specimenPage))
			kept := bytes.Clone(other)
			copy(other, at(b, page))
			copy(at(b, page), kept)
			return b
		}},
		{"a reference elsewhere", func(b []byte, page int) []byte {
			e := pageHeader + elementSize*rnd.IntN(4)
			native.PutUint64(at(b, page)[e+8:], uint64(rnd.IntN(len(b)/specimenPage)))
			return b
		}},
		{"cut before it", func(b []byte, page int) []byte { return b[:page*specimenPage] }},
		{"cut within it", func(b []byte, page int) []byte { return b[:page*specimenPage+rnd.IntN(specimenPage)] }},
	}
}

// saysSo reports whether an error says what is wrong with the store's file, or with what stands in it.
func saysSo(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrTampered) }

// examine reads everything and writes something, and holds that nothing is wrong without being said. What is said of
// an older state may be there, or not, where older is set.
func (p *specimen) examine(t *testing.T, s *Store, older bool) (found int) {
	t.Helper()
	check := func(what, want, got string, err error) {
		t.Helper()
		switch {
		case err == nil && got == want:
		case err == nil:
			t.Errorf("%s is %.20q…, and no error", what, got)
		case saysSo(err), older && errors.Is(err, ErrNotFound):
			found++
		default:
			t.Errorf("%s: %v", what, err)
		}
	}
	for of, want := range p.values {
		agent, name, _ := strings.Cut(of, " ")
		got, err := s.Secret(agent, name, 0)
		check(of, want, string(got.Sealed), err)
	}
	for id, want := range p.sessions {
		got, err := s.Session(id)
		check(id, want, string(got), err)
	}
	all, broken, err := s.Secrets("")
	check("the list", "", "", err)
	if err == nil && len(all)+len(broken) == 0 && !older {
		t.Error("the list is empty, and no error")
	}
	v, err := s.Verify()
	check("verifying", "", "", err)
	found += len(v.Broken)
	err = s.SetSecrets([]control.SealedSecret{{Meta: control.Meta{Agent: "agent-2", Name: "NEW", Version: 1, Created: time.Unix(2, 0)}, KeyID: s.Public().ID(), Sealed: []byte("x")}})
	check("a write", "", "", err)
	if _, err := s.DeleteSecret("agent-3", "KEY_05"); !errors.Is(err, ErrNotFound) {
		check("another write", "", "", err)
	}
	check("a session", "", "", s.PutSession("more", bytes.Repeat([]byte("more"), 3000)))
	return found
}

// Whatever page of the store's file is damaged, however: it opens with an error that says so, or it opens and each value is
// the right one or an error by name; nothing panics, then or later.
func TestAttack35DamagedPages(t *testing.T) {
	p := newSpecimen(t)
	dir, pages := filepath.Join(t.TempDir(), "state"), len(p.data)/specimenPage
	rnd := rand.New(rand.NewPCG(35, 36))
	rounds := 1 // of each damage to each page
	if os.Getenv("TORNO_SOAK") != "" {
		rounds = 10
	}
	refused, noticed, harmless := 0, 0, 0
	for _, d := range damages(rnd) {
		for page := range pages {
			for range rounds {
				p.put(t, dir, d.do(bytes.Clone(p.data), page))
				s, err := Open(dir)
				if err != nil {
					if !saysSo(err) && !strings.Contains(err.Error(), "has format") {
						t.Fatalf("page %d of %d, %s: %v", page, pages, d.name, err)
					}
					refused++
					continue
				}
				s.file.db.NoSync = true
				older := s.file.halved || page == 0 && strings.HasPrefix(d.name, "cut") // nothing is left: a new store
				if found := p.examine(t, s, older); found > 0 {
					noticed++
				} else {
					harmless++
				}
				if err := s.Close(); err != nil && !saysSo(err) {
					t.Errorf("closing: %v", err)
				}
				if t.Failed() {
					t.Fatalf("page %d of %d, %s", page, pages, d.name)
				}
			}
		}
	}
	t.Logf("%d pages: %d times refused, %d times noticed by name, %d times nothing in use was hit", pages, refused, noticed, harmless)
	if refused < 2*pages || noticed < pages {
		t.Error("little was tested")
	}
}

// The control: what is refused above bbolt itself panics at.
func TestDamagedPagesControl(t *testing.T) {
	p := newSpecimen(t)
	data := bytes.Clone(p.data)
	w, err := checkPages(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	data[w.meta.root*w.meta.pageSize+8] = 0 // what the page is
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	panicked := func() (p any) {
		defer func() { p = recover() }()
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		return db.View(func(tx *bbolt.Tx) error { tx.Bucket(bucketMeta); return nil })
	}()
	if panicked == nil {
		t.Error("bbolt does not panic: what is it that is kept from it?")
	}
	if _, err := checkPages(bytes.NewReader(data), int64(len(data))); err == nil {
		t.Error("not found")
	}
}

// The same under a store that is open: what somebody writes over its file, or cuts off, is an error by name.
func TestAttack35DamagedWhileOpen(t *testing.T) {
	p := newSpecimen(t)
	dir, pages := filepath.Join(t.TempDir(), "state"), len(p.data)/specimenPage
	rnd := rand.New(rand.NewPCG(37, 38))
	noticed := 0
	for i, d := range damages(rnd) {
		for page := i % 3; page < pages; page += 3 {
			p.put(t, dir, p.data)
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			s.file.db.NoSync = true
			data := d.do(bytes.Clone(p.data), page)
			f, err := os.OpenFile(filepath.Join(dir, dataFile), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(data, 0)
			if err := errors.Join(err, f.Truncate(int64(len(data))), f.Close()); err != nil {
				t.Fatal(err)
			}
			if p.examine(t, s, false) > 0 {
				noticed++
			}
			if err := s.Close(); err != nil && !saysSo(err) {
				t.Errorf("closing: %v", err)
			}
			if t.Failed() {
				t.Fatalf("page %d of %d, %s", page, pages, d.name)
			}
		}
	}
	if t.Logf("%d times noticed", noticed); noticed < pages {
		t.Error("little was tested")
	}
}

// A fault in the mapping is an error: the file is cut short between the look at its pages and the read.
func TestAttack35CutUnderRead(t *testing.T) {
	p := newSpecimen(t)
	dir := filepath.Join(t.TempDir(), "state")
	p.put(t, dir, p.data)
	s := openStore(t, dir)
	err := s.file.read(func(tx *bbolt.Tx) error {
		if err := os.Truncate(filepath.Join(dir, dataFile), 0); err != nil {
			return err
		}
		return tx.Bucket(bucketSecrets).ForEach(func(k, v []byte) error { _ = bytes.Count(v, k); return nil })
	})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("reading: %v", err)
	}
	for range 2 { // its locks may be held for ever
		if _, err := s.Session("session01"); !errors.Is(err, ErrDamaged) {
			t.Errorf("again: %v", err)
		}
		if err := s.PutSession("session01", nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("writing: %v", err)
		}
	}
	if err := s.Close(); !errors.Is(err, ErrDamaged) && err != nil {
		t.Error(err)
	}
}

// A panic that a whole file is no reason for is a mistake of ours, and stays one.
func TestOwnPanic(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "state"))
	defer func() {
		if p := recover(); p != "ours" {
			t.Errorf("recovered %v", p)
		}
	}()
	_ = s.file.read(func(*bbolt.Tx) error { panic("ours") })
}

// Where one of bbolt's two beginnings is damaged, the state before is used, and that is said: the audit names what was
// lost, and sessions end.
func TestAttack35DamagedBeginning(t *testing.T) {
	for more := range 2 { // each of the two is the newer one in turn
		t.Run(fmt.Sprint(more), func(t *testing.T) { damagedBeginning(t, more) })
	}
}

func damagedBeginning(t *testing.T, more int) {
	dir := filepath.Join(t.TempDir(), "state")
	m := &memory{}
	s := openStore(t, dir)
	anchored(t, s, m)
	if err := s.PutSession("s1", []byte("one")); err != nil {
		t.Fatal(err)
	}
	for v := range 2 + more {
		set(t, s, sealed(t, s, "a", "K", v+1, "value"))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, dataFile)
	b := readFile(t, path)
	w, err := checkPages(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	b[w.meta.tx%2*w.meta.pageSize+pageHeader+20] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	findings := fmt.Sprint(anchored(t, s, m))
	for _, want := range []string{"damaged", "s1", "an older one was put back", `"K" of agent "a"`} {
		if !strings.Contains(findings, want) {
			t.Errorf("found %s, want %q", findings, want)
		}
	}
	if v, err := value(s, "a", "K", 0); !errors.Is(err, ErrTampered) {
		t.Errorf("%q, %v", v, err)
	}
	s.Close()
	s = openStore(t, dir)
	if f := anchored(t, s, m); len(f) > 0 || s.file.halved {
		t.Errorf("once more: %v", f)
	}
}

// A file that nobody has damaged passes the check, whatever was written to it and removed from it before.
func TestPagesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: leastPageSize, NoSync: true, NoGrowSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 600 {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte{byte('a' + round%3)})
			grow, long := rnd.IntN(3) > 0 || round < 100, 1<<rnd.IntN(12)
			for range rnd.IntN(200) {
				key := fmt.Appendf(nil, "%0*d", 1+rnd.IntN(60), rnd.IntN(900))
				if grow {
					err = errors.Join(err, b.Put(key, make([]byte, rnd.IntN(long))))
				} else if k, _ := b.Cursor().Seek(key); k != nil {
					err = errors.Join(err, b.Delete(bytes.Clone(k)))
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if w, err := checkPages(f, info.Size()); err != nil || w.halved {
			t.Fatalf("after transaction %d: %v", round, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzPages holds that bbolt reads and writes without harm what passes the check.
func FuzzPages(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: leastPageSize})
	if err != nil {
		f.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		for i := range 12 {
			err = errors.Join(err, b.Put(fmt.Append(nil, i), bytes.Repeat([]byte{byte(i)}, 15*i*i)))
		}
		inline, also := tx.CreateBucket([]byte("inline"))
		return errors.Join(err, also, inline.Put([]byte("k"), []byte("v")))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		f.Fatal(err)
	}
	whole := readFile(f, path)
	w, err := checkPages(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:w.meta.end*leastPageSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := checkPages(bytes.NewReader(b), int64(len(b))); err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoGrowSync: true})
		if err != nil {
			return
		}
		defer db.Close()
		for range 2 { // what the first one frees the second one uses
			_ = db.Update(func(tx *bbolt.Tx) error {
				return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
					_ = b.ForEach(func(k, v []byte) error { _ = bytes.Count(v, k); return nil })
					return errors.Join(b.Put([]byte("new"), make([]byte, 5000)), b.Delete([]byte("7")))
				})
			})
		}
	})
}
