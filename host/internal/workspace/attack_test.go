package workspace

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/workspace"
)

// example returns a name that a row is about.
func (r Row) example() string {
	return strings.NewReplacer("/**/", "/some/where/", "**", "some/thing", "*", "x").Replace(r.Pattern)
}

// allCode returns an example of each row, as it stands in a workspace.
func allCode() []string {
	var all []string
	for _, r := range HostCode {
		all = append(all, r.example(), "deep/er/"+r.example())
	}
	for _, r := range gitCode {
		all = append(all, ".git/"+r.example(), "sub/.git/"+r.example(), "bare.git/"+r.example())
	}
	all = append(all, ".git/hooks/post-checkout", ".git/modules/a/b/config", ".git/modules/a/hooks/x", ".git/worktrees/w/commondir")
	slices.Sort(all)
	return slices.Compact(all)
}

// harmless are names that look like those of the table and are not executed.
var harmless = []string{
	"main.go", "package.json", "Cargo.toml", "build.rs", "conftest.py", ".gitignore", ".gitattributes", ".editorconfig", ".github/workflows/ci.yml",
	"config", "hooks/post-checkout", "x.envrc", "envrc", "src/vscode/tasks.json", "Makefile.am", "makefile.txt", "git/config", "HEADER",
	".git/HEAD", ".git/index", ".git/objects/ab/cdef", ".git/refs/heads/main", ".git/refs/heads/config", ".git/refs/heads/hooks/x", ".git/logs/HEAD",
	".git/packed-refs", ".git/COMMIT_EDITMSG", ".git/info/exclude", ".git/hooks/pre-commit.sample", ".git/modules/a/HEAD", "bare.git/HEAD",
}

// Attack 43: every row of the table is held, whoever names it how; what it must not hold is the control.
func TestAttack43HostCode(t *testing.T) {
	d := sit(t, map[string]string{"src/main.go": "package main"})
	code := newCodeTable(nil, d.w.isGit)
	for _, name := range allCode() {
		if code.why(name) == "" {
			t.Errorf("%q is not held", name)
		}
	}
	for _, name := range harmless {
		if why := code.why(name); why != "" {
			t.Errorf("%q is held: %s", name, why)
		}
	}
	for _, name := range []string{ // what some file system takes for .git/config, .git/hooks, .envrc, Makefile, .vscode
		".GIT/config", ".git/CONFIG", ".Git/Hooks/post-checkout", ".gi\u200ct/config", ".g\u00adit/config", "\ufeff.git/config", ".git\u200e/hooks/x", ".git./config",
		".git /config", ".git. . /config", "git~1/config", "GIT~1/config", ".git::$INDEX_ALLOCATION/config", ".git/config::$DATA", ".git/con\ufb01g",
		".git/hoo\u212as/post-checkout", ".ENVRC", ".envrc\u2060", "MAKEFILE", "ma\u212aefile", ".v\u017fcode/tasks.json", ".vscode\ufe0f/tasks.json", "a/.Git",
		".torno.toml/../torno.toml"[15:], "TORNO.TOML",
	} {
		if code.why(name) == "" {
			t.Errorf("%q is not held", name)
		}
	}
}

// Attack 43, all the way: every row new, changed, deleted and as a link, without and with --accept-host-code.
func TestAttack43CodeIsHeld(t *testing.T) {
	for _, accept := range []bool{false, true} {
		for _, name := range allCode() {
			d := sit(t, map[string]string{name: "mine", "control": "mine"})
			r := d.back(accept, inOrder(say{name, "evil"}, say{"control", "new"})...)
			tree := d.tree()
			want := map[string]string{name: "mine", ReviewDir + "/" + name: "evil", "control": "new"}
			if accept {
				want = map[string]string{name: "evil", "control": "new"}
			}
			if diff := cmp.Diff(want, tree); diff != "" || len(r.Held) != len(want)-2 {
				t.Errorf("%s, accepted %v: held %v (-want +got):\n%s", name, accept, r.Held, diff)
			}
			if info, err := os.Stat(filepath.Join(d.dir, ReviewDir, name)); err == nil && info.Mode() != 0o600 {
				t.Errorf("%s is kept with mode %v", name, info.Mode())
			}
			d.in()
			r = d.back(accept, say{name, deleted})
			if _, left := d.tree()[name]; left == accept || len(r.Held) != map[bool]int{false: 1}[accept] {
				t.Errorf("%s, deleted, accepted %v: here %v, held %v", name, accept, left, r.Held)
			}
			d = sit(t, map[string]string{"evil": "x", filepath.Dir(name) + "/": ""})
			up := strings.Repeat("../", strings.Count(name, "/"))
			r = d.back(accept, inOrder(say{name, "->" + up + "evil"})...)
			if got := d.tree()[name]; (got == "->"+up+"evil") != accept || len(r.Held) != map[bool]int{false: 1}[accept] {
				t.Errorf("%s as a link, accepted %v: %q, held %v", name, accept, got, r.Held)
			}
		}
	}
}

// inOrder sorts what the guest says as an archive must be.
func inOrder(says ...say) []say {
	slices.SortFunc(says, func(a, b say) int { return workspace.Compare(a.name, b.name) })
	return says
}

// Attack 43: what the repository here takes commands from, by its own configuration.
func TestAttack43ConfiguredCode(t *testing.T) {
	d := sit(t, map[string]string{
		".git/config":      "[core]\n\thooksPath = tools\n\tfsmonitor = \"scripts/watch.sh --all\"\n[include]\n\tpath = ../team.config\n[remote \"origin\"]\n\turl = src\n",
		"tools/pre-commit": "mine", "scripts/watch.sh": "mine", "scripts/other.sh": "mine", "team.config": "mine", "src/main.go": "mine",
	})
	r := d.back(false, inOrder(say{"tools/pre-commit", "evil"}, say{"tools/post-checkout", "evil"}, say{"scripts/watch.sh", "evil"}, say{"scripts/other.sh", "new"},
		say{"team.config", "evil"}, say{"src/main.go", "new"})...)
	if diff := cmp.Diff([]string{"scripts/watch.sh", "team.config", "tools/post-checkout", "tools/pre-commit"}, names(r.Held)); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	if tree := d.tree(); tree["scripts/other.sh"] != "new" || tree["src/main.go"] != "new" || tree["tools/pre-commit"] != "mine" {
		t.Errorf("%q", tree)
	}
}

// Attack 43: what a configuration names that is not there yet, what included files name, and what is no file of it.
func TestAttack43ConfiguredCodeToCome(t *testing.T) {
	d := sit(t, map[string]string{
		".git/config":       "[core]\n\thooksPath = tools/hooks\n[include] path = extra.config\n[includeIf \"onbranch:x\"]\n\tpath = \"../team config\"\n[branch \"main\"]\n\tmerge = refs/heads/main\n",
		".git/extra.config": "[diff \"x\"]\n\ttextconv = ./to/text\n[include]\n\tpath = more.config\n", ".git/refs/heads/main": "1", "a": "1",
	})
	r := d.back(false, inOrder(say{"tools/hooks/pre-commit", script}, say{".git/extra.config", "evil"}, say{".git/more.config", "evil"}, say{"team config", "evil"},
		say{"to/text", script}, say{".git/refs/heads/main", "2"}, say{"a", "new"})...)
	if diff := cmp.Diff([]string{".git/extra.config", ".git/more.config", "team config", "to/text", "tools/hooks/pre-commit"}, names(r.Held)); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	if tree := d.tree(); tree[".git/refs/heads/main"] != "2" || tree["a"] != "new" {
		t.Errorf("the control: %q", tree)
	}
}

// Attack 43: code that this machine reaches by a link, which may lead over others, out of the workspace and back.
func TestAttack43LinkedCode(t *testing.T) {
	outside := tempDir(t)
	d := sit(t, map[string]string{
		".git/HEAD": "ref: refs/heads/main", ".git/hooks/pre-commit": "->../../scripts/check.sh", "scripts/check.sh": "mine", "scripts/other.sh": "mine",
		".envrc": "->conf/current", "conf/current": "->one", "conf/one": "mine", "conf/two": "mine", ".vscode": "->ide/vs", "ide/vs/tasks.json": "->../../tasks", "tasks": "mine",
		"doc": "->readme", "readme": "mine", "sub/Makefile": "->" + outside + "/back", ".env": "->secret.env",
	})
	if err := os.Symlink(d.dir+"/build/rules", outside+"/back"); err != nil {
		t.Fatal(err)
	}
	r := d.back(false, inOrder(say{"scripts/check.sh", "evil"}, say{"scripts/other.sh", "new"}, say{"conf/current", "->two"}, say{"conf/one", "evil"}, say{"conf/two", "new"},
		say{"tasks", "evil"}, say{"ide/vs/settings.json", "evil"}, say{"readme", "new"}, say{"build/rules", "evil"}, say{"secret.env", "evil"})...)
	want := []string{"build/rules", "conf/current", "conf/one", "ide/vs/settings.json", "scripts/check.sh", "secret.env", "tasks"}
	if diff := cmp.Diff(want, names(r.Held)); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	tree := d.tree()
	for _, name := range []string{"scripts/check.sh", "conf/one", "tasks"} {
		if tree[name] != "mine" {
			t.Errorf("%s: %q", name, tree[name])
		}
	}
	for _, name := range []string{"scripts/other.sh", "conf/two", "readme"} {
		if tree[name] != "new" {
			t.Errorf("the control: %s: %q", name, tree[name])
		}
	}
}

// A repository of another name, made here or there.
func TestAttack43BareRepositories(t *testing.T) {
	d := sit(t, map[string]string{"store/HEAD": "ref: refs/heads/main", "store/config": "mine", "store/hooks/": "", "a": "1"})
	says := []say{{"evil", directory}, {"evil/HEAD", "ref: refs/heads/main"}, {"evil/config", "[core] fsmonitor"}, {"evil/objects", directory}, {"evil/refs", directory},
		{"store/config", "evil"}, {"store/hooks/update", script}, {"store/objects/x", "new"}}
	r := d.back(false, says...)
	if diff := cmp.Diff([]string{"evil/HEAD", "store/config", "store/hooks/update"}, names(r.Held)); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
}

// Attack 43: links that lead outside, and writing through links, those that the guest makes and those that are here.
func TestAttack43Links(t *testing.T) {
	outside := tempDir(t)
	d := sit(t, map[string]string{"a": "1", "d/x": "2", "here": "->d", ".git/config": "mine", "loop": "->.", "out": "->" + outside})
	t.Run("refused", func(t *testing.T) {
		r := d.back(false, inOrder(say{"l1", "->/etc/passwd"}, say{"l2", "->../x"}, say{"l3", "->d/../../x"}, say{"l4", "->loop/../x"}, say{"l5", "->out/secret"}, say{"d/l6", "->../../x"},
			say{"l7", "->d/x"}, say{"l8", "->nowhere"})...)
		if diff := cmp.Diff([]string{"d/l6", "l1", "l2", "l3", "l4", "l5"}, names(r.Left)); diff != "" {
			t.Errorf("left out (-want +got):\n%s", diff)
		}
		if tree := d.tree(); tree["l7"] != "->d/x" || tree["l8"] != "->nowhere" {
			t.Errorf("control: %q", tree)
		}
	})
	d.in()
	t.Run("written through", func(t *testing.T) {
		r := d.back(false, inOrder(say{"here/x", "evil"}, say{"loop/.git/config", "evil"}, say{"loop/new", "evil"}, say{"out/evil", "evil"}, say{"d/x", "new"})...)
		tree := d.tree()
		if tree["d/x"] != "new" || tree[".git/config"] != "mine" || tree["new"] != "" {
			t.Errorf("%q", tree)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("outside: %v, %v", left, err)
		}
		if len(r.Conflicts) != 3 || len(r.Held) != 1 {
			t.Errorf("conflicts %v, held %v", r.Conflicts, r.Held)
		}
	})
	t.Run("a directory became a link here", func(t *testing.T) {
		if err := errors.Join(os.RemoveAll(d.dir+"/d"), os.Symlink(outside, d.dir+"/d")); err != nil {
			t.Fatal(err)
		}
		d.back(false, say{"d/x", deleted}, say{"d/y", "evil"})
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("outside: %v, %v", left, err)
		}
	})
}

// Attack 43: our own names, and what stands in for them here.
func TestAttack43OwnNames(t *testing.T) {
	d := sit(t, map[string]string{"a": "1"})
	r := d.back(false, inOrder(say{".torno-review", directory}, say{".torno-review/.envrc", "evil"}, say{".torno-incoming/0", "evil"}, say{".TORNO-review/x", "evil"},
		say{".torno-review.", "evil"}, say{"sub/.torno-review/x", "new"})...)
	if tree := d.tree(); len(tree) != 2 || tree["sub/.torno-review/x"] != "new" || len(r.Left) != 5 {
		t.Errorf("%q, left out %v", tree, r.Left)
	}
	outside := tempDir(t)
	d = sit(t, map[string]string{"a": "1"})
	d.write(".torno-review", "->"+outside)
	d.write(".torno-incoming", "->"+outside)
	if err := d.w.Receive(bytes.NewReader(pack(t, say{".envrc", "evil"}))); err != nil {
		t.Fatal(err)
	}
	if _, err := d.w.Apply(false); err == nil {
		t.Error("a link stands in for the review directory")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

// Attack 43: archives that break a rule are refused whole, with all that stands before in them.
func TestAttack43Archives(t *testing.T) {
	for _, c := range []struct {
		name   string
		header tar.Header
		ok     bool
	}{
		{"control", tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o644}, true},
		{"name with an escape", tar.Header{Name: "x\x1b[2J\n", Typeflag: tar.TypeReg, Mode: 0o644}, true},
		{"climbs", tar.Header{Name: "../x", Typeflag: tar.TypeReg, Mode: 0o644}, false},
		{"absolute", tar.Header{Name: "/tmp/x", Typeflag: tar.TypeReg, Mode: 0o644}, false},
		{"hard link", tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd", Mode: 0o644}, false},
		{"device", tar.Header{Name: "x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o644}, false},
		{"fifo", tar.Header{Name: "x", Typeflag: tar.TypeFifo, Mode: 0o644}, false},
		{"setuid", tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o4755}, false},
		{"below a file", tar.Header{Name: "a/x", Typeflag: tar.TypeReg, Mode: 0o644}, false},
		{"twice", tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644}, false},
		{"through a link of its own", tar.Header{Name: "l/x", Typeflag: tar.TypeReg, Mode: 0o644}, false},
		{"huge", tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1 << 50}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := sit(t, map[string]string{"mine": "1"})
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			before := tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644}
			if strings.HasPrefix(c.header.Name, "l/") {
				before = tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".", Mode: 0o777}
			}
			for _, h := range []tar.Header{before, c.header} {
				h.Format = tar.FormatPAX
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			if c.header.Size > 0 {
				b.Write(make([]byte, 1024))
			}
			err := d.w.Receive(&b)
			if (err == nil) != c.ok {
				t.Fatalf("%v", err)
			}
			if !c.ok && len(d.tree()) != 1 {
				t.Errorf("left behind: %q", d.tree())
			}
		})
	}
}

// FuzzApply has a guest say anything about a workspace that holds code and links: nothing outside changes,
// no code changes, and what is not ours stays what it was or is what the guest said.
func FuzzApply(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte("\x00\x10\x21\x32\x43\x54\x65\x76\x87"))
	parts := []string{"a", "d", "x", ".git", "hooks", "config", "link", "out", ".envrc", ".torno-review", "HEAD", "loop", ".torno-incoming", "Makefile", ".GIT", "e"}
	f.Fuzz(func(t *testing.T, b []byte) {
		outside := tempDir(t)
		before := map[string]string{"a": "1", "d/x": "2", "d/e/x": "3", "link": "->d", "loop": "->.", ".git/config": "mine", ".git/hooks/x": "mine",
			".git/HEAD": "ref", ".envrc": "mine", "Makefile": "mine", "out": "->" + outside}
		d := sit(t, before)
		what := []string{"evil", deleted, directory, other, script, "->../" + filepath.Base(outside), "->d", "->.git", "->loop/..", "->" + outside}
		var says []say
		for i := 0; i+1 < len(b) && i < 40; i += 2 {
			name := parts[b[i]&15]
			if b[i]&16 != 0 {
				name += "/" + parts[b[i]>>5] + map[bool]string{true: "/" + parts[b[i+1]>>4]}[b[i+1]&8 != 0]
			}
			says = append(says, say{name, what[int(b[i+1])%len(what)]})
		}
		says = slices.CompactFunc(inOrder(says...), func(a, b say) bool { return a.name == b.name })
		leaf := ""
		says = slices.DeleteFunc(says, func(s say) bool {
			if leaf != "" && workspace.Below(s.name, leaf) {
				return true
			}
			if s.what != directory {
				leaf = s.name
			}
			return false
		})
		if err := d.w.Receive(bytes.NewReader(pack(t, says...))); err != nil {
			t.Fatal(err)
		}
		if _, err := d.w.Apply(false); err != nil {
			t.Fatalf("%q: %v", says, err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Fatalf("%q wrote outside: %v, %v", says, left, err)
		}
		tree := d.tree()
		for _, name := range []string{".git/config", ".git/hooks/x", ".envrc", "Makefile"} {
			if tree[name] != "mine" {
				t.Errorf("%q changed %s to %q", says, name, tree[name])
			}
		}
		for name, content := range tree {
			if strings.HasPrefix(name, ReviewDir+"/") || strings.Contains(name, ConflictSuffix) || strings.HasSuffix(name, "/") {
				continue
			}
			if content == before[name] {
				continue
			}
			if !slices.Contains(says, say{name, content}) {
				t.Errorf("%q made %q of %s", says, content, name)
			}
			if newCodeTable(nil, d.w.isGit).why(name) != "" || strings.HasPrefix(content, "->") && filepath.IsAbs(content[2:]) {
				t.Errorf("%q made %q of %s", says, content, name)
			}
		}
	})
}
