package session

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"torno.internal/broker/internal/store"
)

// TestInStore holds that a session outlives the broker in the real store, and that nothing on disk shows
// what it could be taken up with.
func TestInStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	open := func() *store.Store {
		t.Helper()
		st, err := store.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := open()
	s := newTestSession(t, st)
	token, err := s.Hello(nonce(1))
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(&s.rec)
	if err != nil {
		t.Fatal(err)
	}
	var hidden [][]byte // as the record has it, and as it is
	for _, v := range [][]byte{token[:], s.rec.TokenHash, s.rec.RunToken, s.rec.CAKey, s.rec.Nonce} {
		text := []byte(base64.StdEncoding.EncodeToString(v))
		if !bytes.Contains(record, text) {
			t.Fatal("the test looks for what the record does not hold")
		}
		hidden = append(hidden, v, text)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	st = open()
	defer st.Close()
	all, err := All(st)
	if err != nil || len(all) != 1 || all[0].ID() != s.ID() {
		t.Fatalf("All = %v, %v", all, err)
	}
	if again, err := all[0].Hello(nonce(1)); err != nil || again != token {
		t.Errorf("hello repeated after a restart: %v", err)
	}
	if err := all[0].UseToken(token); err != nil {
		t.Error(err)
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for i, v := range hidden {
			if bytes.Contains(b, v) {
				t.Errorf("%s shows secret %d of the record", path, i/2)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
