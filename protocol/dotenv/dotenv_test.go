package dotenv

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A read is what a file says of one name.
type read struct {
	Name  string
	Line  int
	Value string
}

// reads opens entries, for comparison.
func reads(entries []Entry) []read {
	var all []read
	for _, e := range entries {
		all = append(all, read{e.Name, e.Line, string(e.Value.AppendTo(nil))})
	}
	return all
}

// accepted are files and what they say. Where shell is set, sh says the same.
var accepted = []struct {
	name, file string
	shell      bool
	want       []read
}{
	{"empty", "", true, nil},
	{"nothing but blanks", " \n\t\r\n\n# only this", false, nil},
	{"plain", "A=b\nC=d", true, []read{{"A", 1, "b"}, {"C", 2, "d"}}},
	{"CR LF", "A=b\r\nC='d'\r\n\r\nE=\"f\"\r\n", false, []read{{"A", 1, "b"}, {"C", 2, "d"}, {"E", 4, "f"}}},
	{"byte order mark", "\xef\xbb\xbfA=b\n", false, []read{{"A", 1, "b"}}},
	{"export", "export A=b\n\texport \t C=d\nexport=e\nexported=f", true, []read{{"A", 1, "b"}, {"C", 2, "d"}, {"export", 3, "e"}, {"exported", 4, "f"}}},
	{"comments", "# A=x\n  # y='\nA=b # c\nC='d' # e\nE=\"f\"\t#g\n", true, []read{{"A", 3, "b"}, {"C", 4, "d"}, {"E", 5, "f"}}},
	{"a # in quotes", "A='b # c'\nC=\"d#e\"", true, []read{{"A", 1, "b # c"}, {"C", 2, "d#e"}}},
	{"spaces around =", "  A = b \n\tC\t=\td e\t\n", false, []read{{"A", 1, "b"}, {"C", 2, "d e"}}},
	{"spaces in quotes", "A=' b '\nC=\"\td\"", true, []read{{"A", 1, " b "}, {"C", 2, "\td"}}},
	{"empty values", "A=\nB=''\nC=\"\"\nD= \n", true, []read{{"A", 1, ""}, {"B", 2, ""}, {"C", 3, ""}, {"D", 4, ""}}},
	{"= in a value", "A=b=c==\n", true, []read{{"A", 1, "b=c=="}}},
	{"quotes in the middle", "A=b'c\"d\nE={\"f\":1}", false, []read{{"A", 1, "b'c\"d"}, {"E", 2, `{"f":1}`}}},
	{"backslashes without quotes", `A=b\nc\d`, false, []read{{"A", 1, `b\nc\d`}}},
	{"single quotes", `A='b"\n$C${D} \x' ` + "\nE=f", true, []read{{"A", 1, `b"\n$C${D} \x`}, {"E", 2, "f"}}},
	{"escapes", `A="b\nc\rd"`, false, []read{{"A", 1, "b\nc\rd"}}},
	{"escapes that a shell knows", `A="b\"c\\d\$e'f` + "`" + `"`, false, []read{{"A", 1, `b"c\d$e'f` + "`"}}},
	{"several lines", "A=\"b\nc # d\n\ne\" # f\nG=h", true, []read{{"A", 1, "b\nc # d\n\ne"}, {"G", 5, "h"}}},
	{"several lines in single quotes", "A='b\nc'\nG=h", true, []read{{"A", 1, "b\nc"}, {"G", 3, "h"}}},
	{"several lines with CR LF", "A=\"b\r\nc\\r\r\nd\"\r\nG='h\r\ni'", false, []read{{"A", 1, "b\nc\r\nd"}, {"G", 4, "h\ni"}}},
	{"PEM", "K=\"-----BEGIN KEY-----\nYQ==\n-----END KEY-----\n\"\nJ=\"-----BEGIN KEY-----\\nYQ==\"", false,
		[]read{{"K", 1, "-----BEGIN KEY-----\nYQ==\n-----END KEY-----\n"}, {"J", 5, "-----BEGIN KEY-----\nYQ=="}}},
	{"beyond ASCII", "A=schlüssel\nB='\u00a0'", true, []read{{"A", 1, "schlüssel"}, {"B", 2, "\u00a0"}}},
	{"names", "_=a\na.b-c9=d\nlower=e", false, []read{{"_", 1, "a"}, {"a.b-c9", 2, "d"}, {"lower", 3, "e"}}},
	{"the longest name", strings.Repeat("A", MaxName) + "=b", true, []read{{strings.Repeat("A", MaxName), 1, "b"}}},
	{"no value beside a comment", "A=b\n#", true, []read{{"A", 1, "b"}}},
}

func TestParse(t *testing.T) {
	for _, tt := range accepted {
		got, err := Parse(".env", []byte(tt.file))
		if diff := cmp.Diff(tt.want, reads(got)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
}

// What a shell reads as well, it reads in the same way.
func TestParseAsShell(t *testing.T) {
	asked := 0
	for _, tt := range accepted {
		if !tt.shell {
			continue
		}
		script := "set -eu\n" + tt.file + "\n"
		var want strings.Builder
		for _, r := range tt.want {
			script += fmt.Sprintf("printf '%%s\\0' \"$%s\"\n", r.Name)
			want.WriteString(r.Value + "\x00")
			asked++
		}
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if err != nil || string(out) != want.String() {
			t.Errorf("%s: sh says %q, %v; want %q", tt.name, out, err, want.String())
		}
	}
	if asked < 20 {
		t.Errorf("%d values were compared", asked)
	}
}

// refused are files with what must never be repeated, "hunter2", and the line and the message that they are refused with.
var refused = []struct {
	name, file string
	line       int
	want       string
}{
	{"no name", "A=b\n=hunter2", 2, "no name"},
	{"a digit first", "2hunter2=c", 1, "no name"},
	{"a value alone", "sk-hunter2\n", 1, "no = after"},
	{"a name alone", "A=b\nexport hunter2\n", 2, "no = after"},
	{"a colon", "A: hunter2", 1, "no = after"},
	{"two words", "hunter2 B=c", 1, "no = after"},
	{"PEM without quotes", "A=-----BEGIN hunter2-----\nYQ==\n", 1, "PEM"},
	{"the rest of it", "YQhunter2+/=\n", 1, "no = after"},
	{"twice", "A=hunter2\n\nA=hunter2\n", 3, "line 1 already"},
	{"twice, once exported", "A=hunter2\nexport A='hunter2'", 2, "line 1 already"},
	{"a long name", strings.Repeat("hunter2", 40) + "=x", 1, "a name of more than 128 bytes"},
	{"too many", "A=x\n" + numbered(MaxEntries), MaxEntries + 1, "more than 256 names"},
	{"too large", "A=" + strings.Repeat("hunter2", MaxFile/7+1), 0, "more than 1048576 bytes"},
	{"NUL", "A=b\nC=hunter2\x00", 2, "NUL"},
	{"NUL in a comment", "A=b\n# hunter2\x00", 2, "NUL"},
	{"NUL in quotes", "A=b\nC='\nhunter2\x00'", 3, "NUL"},
	{"CR alone", "A=hunter2\rB=c", 1, "carriage return"},
	{"CR at the end", "A=b\nC=hunter2\r", 2, "carriage return"},
	{"CR in quotes", "A=\"hunter2\r\"", 1, "carriage return"},
	{"Latin-1", "A=b\nC=hunter2\xe4", 2, "not UTF-8"},
	{"UTF-16", "\xff\xfeA\x00=\x00h\x00", 1, "UTF-16"},
	{"UTF-16, the other way", "\xfe\xff\x00A\x00=", 1, "UTF-16"},
	{"a mark in the middle", "A=b\n\xef\xbb\xbfC=hunter2", 2, "no name"},
	{"# without a space", "A=hunter2#c", 1, "a # that"},
	{"# at once", "A=#hunter2", 1, "a # that"},
	{"# after a space", "A= # hunter2", 1, "a # that"},
	{"a variable", "A=hunter2$B", 1, "a $ that"},
	{"a variable in braces", "A=${B:-hunter2}", 1, "a $ that"},
	{"a hash of a password", "A=$2b$10$hunter2", 1, "a $ that"},
	{"a variable in quotes", "A=\"hunter2\n${B}\"", 2, "a $ that"},
	{"a backtick", "A=`hunter2`", 1, "backtick"},
	{"a line that goes on", "A=hunter2\\\nB=c", 1, "joins two lines"},
	{"a quote that does not end", "A=b\nC='hunter2\nD=e\n", 2, "does not end"},
	{"a double quote that does not end", "A=b\nC=\"hunter2\\\"\nD=e\n", 2, "does not end"},
	{"a backslash at the end of all", `A="hunter2\`, 1, "does not end"},
	{"two quotes", `A="hunter2"'c'`, 1, "after the closing quote"},
	{"a comment without a space", `A="hunter2"#c`, 1, "after the closing quote"},
	{"words after quotes", `A='hunter2' c`, 1, "after the closing quote"},
	{"a quote that ends in another line", "A='hunter2\nB='c'", 2, "after the closing quote"},
	{"a tab as an escape", `A="hunter2\tb"`, 1, "means different things"},
	{"a letter as an escape", `A="hunter2\db"`, 1, "means different things"},
	{"a byte as an escape", `A="hunter2\x41"`, 1, "means different things"},
	{"a line joined in quotes", "A=\"hunter2\\\nb\"", 1, "means different things"},
	{"two backslashes in single quotes", `A='hunter2\\b'`, 1, "which some readers drop"},
	{"a quote in single quotes", `A='hunter2\'b'`, 1, "which some readers drop"},
	{"an error in the second line of quotes", "A=b\nC='d\nhunter2\\\\'", 3, "which some readers drop"},
}

// numbered are n lines with a name each.
func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "N%d=hunter2\n", i)
	}
	return b.String()
}

func TestParseRefused(t *testing.T) {
	for _, tt := range refused {
		got, err := Parse("a.env", []byte(tt.file))
		var e *Error
		if !errors.As(err, &e) || got != nil {
			t.Errorf("%s: %d entries, %v; want an error alone", tt.name, len(got), err)
			continue
		}
		begin := fmt.Sprintf("a.env:%d: ", tt.line)
		if tt.line == 0 {
			begin = "a.env: "
		}
		if !strings.HasPrefix(err.Error(), begin) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q with %q", tt.name, err, begin, tt.want)
		}
		if strings.Contains(fmt.Sprintf("%v %+v", err, *e), "hunter2") {
			t.Errorf("%s: what stands in the file is repeated", tt.name)
		}
	}
}

// Entries print without their values.
func TestNeverPrinted(t *testing.T) {
	got, err := Parse(".env", []byte("A=hunter2\nB=\"hunter2\\n\""))
	if text := fmt.Sprintf("%v %+v %#v", got, got, got); err != nil || len(got) != 2 || strings.Contains(text, "hunter2") {
		t.Errorf("%v, %v", text, err)
	}
}

// quote writes a value so that it is read again.
func quote(value []byte) string {
	return `"` + strings.NewReplacer("\n", `\n`, "\r", `\r`, `"`, `\"`, `\`, `\\`, "$", `\$`).Replace(string(value)) + `"`
}

// FuzzParse wants no panic, nothing of the file in an error, bounds kept, and what was read to be read again when it is
// written in another way.
func FuzzParse(f *testing.F) {
	for _, tt := range accepted {
		f.Add([]byte(tt.file))
	}
	for _, tt := range refused {
		if len(tt.file) < 1<<12 {
			f.Add([]byte(tt.file))
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		before := string(file)
		entries, err := Parse("p", file)
		if string(file) != before {
			t.Fatal("the file's bytes were changed")
		}
		if err != nil {
			if entries != nil {
				t.Fatalf("%d entries beside %v", len(entries), err)
			}
			if e := err.(*Error); !constant[withoutNumbers(e.Message)] || e.Line > strings.Count(before, "\n")+1 {
				t.Fatalf("not one of the messages, or no line of the file: %v", err)
			}
			return
		}
		if len(entries) > MaxEntries {
			t.Fatalf("%d entries", len(entries))
		}
		var again strings.Builder
		for i := range entries {
			_ = entries[i].Value.Use(func(v []byte) error {
				fmt.Fprintf(&again, "%s=%s\n", entries[i].Name, quote(v))
				return nil
			})
			entries[i].Line = i + 1
		}
		twice, err := Parse("p", []byte(again.String()))
		if diff := cmp.Diff(reads(entries), reads(twice)); err != nil || diff != "" {
			t.Fatalf("%q, written again %q: %v\n%s", file, again.String(), err, diff)
		}
	})
}

// constant are all messages that there are, without numbers.
var constant = func() map[string]bool {
	all := map[string]bool{}
	for _, tt := range refused {
		if _, err := Parse("p", []byte(tt.file)); err != nil {
			all[withoutNumbers(err.(*Error).Message)] = true
		}
	}
	return all
}()

func withoutNumbers(s string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, s)
}
