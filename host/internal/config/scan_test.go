package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestScan(t *testing.T) {
	const src = "\ufeffa.\"b c\".'d' = 1 # x = 2\r\n" + // line 1
		"[t] # [no]\n" +
		"s = \"\"\"\n[no]\nno = \\\"\"\" 1\n\"\"\"\"\n" + // lines 3 to 6
		"l = '''\nno = 1'''\n" + // lines 7 and 8
		"e = \"no = \\\" # \"\n" +
		"d = 1979-05-27 07:32:00 # no = 1\n" +
		"arr = [ # [no]\n  1,\n  \"]\",\n  { x = 1,\n y = [2] },\n]\n" + // lines 11 to 16
		"[[t.q]]\nk = 1\n" +
		"[[t.q]]\nk = 2\n[t.q.sub]\nz = \"\"\n" +
		"[ t . 'u' ]\nv=''\n\"\" = {}"
	want := positions{
		"a": 1, "a\x00b c": 1, "a\x00b c\x00d": 1, "t": 2, "t\x00s": 3, "t\x00l": 7, "t\x00e": 9, "t\x00d": 10,
		"t\x00arr": 11, "t\x00arr\x000": 12, "t\x00arr\x001": 13, "t\x00arr\x002": 14, "t\x00arr\x002\x00x": 14,
		"t\x00arr\x002\x00y": 15, "t\x00arr\x002\x00y\x000": 15,
		"t\x00q": 17, "t\x00q\x000": 17, "t\x00q\x000\x00k": 18, "t\x00q\x001": 19, "t\x00q\x001\x00k": 20,
		"t\x00q\x001\x00sub": 21, "t\x00q\x001\x00sub\x00z": 22, "t\x00u": 23, "t\x00u\x00v": 24, "t\x00u\x00": 25,
	}
	got, problem := scan(src)
	if problem != nil {
		t.Fatal(problem)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever stands around it, an unknown key is reported on the line where it stands.
func TestPropertyLines(t *testing.T) {
	fragments := []string{
		"\n", "# u = 1 \"\"\"\n", "k%d = 1\n", "k%d = \"a # b\"\n", "k%d = '''\nu = 1\n'''\n", "k%d = \"\"\"\\\n  x \\\"\"\" \n\"\"\"\n",
		"k%d = [\n  [1, 2], # ]\n  [\"]\"],\n]\n", "k%d = { a = \"}\", b = [ { c = 1 } ] }\n", "[t%d]\n", "[[t%d.u]]\n", "[secret.K%d]\n", "[ secret . \"K%d\" ] # x\n", "k%d.a.\"b.c\" = 1\r\n",
		"k%d = 07:32:00\n", "k%d = '\\'\n", "\"k%d\\\"\" = 1.5e3\n",
	}
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		b.WriteString("name = \"a\"\n")
		marks := map[string]int{}
		known := true // keys of this table are looked at one by one
		for i, fragment := range rapid.SliceOfN(rapid.SampledFrom(fragments), 1, 20).Draw(t, "fragments") {
			text := strings.ReplaceAll(fragment, "%d", fmt.Sprint(i))
			b.WriteString(text)
			if text[0] == '[' {
				known = strings.Contains(text, "secret")
			}
			if known {
				mark := fmt.Sprintf("mark%d", i)
				marks[mark] = strings.Count(b.String(), "\n") + 1
				b.WriteString(mark + " = 0\n")
			}
		}
		_, err := ParseAgent("torno.toml", []byte(b.String()))
		var e *Errors
		if err == nil {
			return
		}
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		for _, p := range e.Problems {
			for mark, line := range marks {
				if strings.HasPrefix(p.Message, "unknown key") && strings.HasSuffix(p.Message, mark+`"`) {
					if p.Line != line {
						t.Fatalf("%s is on line %d, reported on %d:\n%s", mark, line, p.Line, b.String())
					}
					delete(marks, mark)
				}
			}
		}
		if len(marks) > 0 {
			t.Fatalf("not reported: %v\n%v\n%s", marks, err, b.String())
		}
	})
}

func TestNearest(t *testing.T) {
	known := []string{"name", "secrets", "secret", "workload", "egress"}
	for word, want := range map[string]string{
		"secrts": "secrets", "Secrets": "secrets", "nmae": "name", "egres": "egress", "work_load": "workload",
		"allow": "", "": "", "x": "", strings.Repeat("a", 1000): "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// The scanner finds every key that the library finds, unless it stopped at a bound.
func FuzzScan(f *testing.F) {
	for _, src := range []string{
		wholeAgent, "[[a]]\nb = [{c = 1}]\n[a.d]\n", "a.b.\"c\\u00e9\" = '''\n'''", "x = 1979-05-27 07:32:00", "a = [\n1, # ]\n]",
		"a = \"\"\"\\\"\"\"\"\"\"\"\nb = 1", "[ a . 'b' ] # x\n\"\" = {}\r\n",
	} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		lines, problem := scan(src)
		if problem != nil || len(lines) >= maxPositions {
			return
		}
		var tree map[string]any
		md, err := toml.Decode(src, &tree)
		if err != nil {
			return
		}
		names := map[string]bool{}
		for k := range lines {
			names[k] = true
			parts := strings.Split(k, "\x00")
			names[pathKey(slices.DeleteFunc(parts, isIndex))] = true
		}
		for _, key := range md.Keys() {
			if slices.ContainsFunc(key, isIndex) || strings.ContainsAny(key.String(), `\"`) {
				continue // told apart from indices, or escapes of TOML's own
			}
			if !names[pathKey(key)] {
				t.Fatalf("key %q of %q has no line: %v", key, src, lines)
			}
		}
	})
}

func isIndex(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
