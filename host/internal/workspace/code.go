package workspace

import (
	"path"
	"strings"
	"unicode"
)

// A Row names files that this machine executes, or takes commands from, without being asked to run the
// project's own code: when somebody enters the directory, opens it in an editor, or uses git in it.
type Row struct {
	Pattern string // elements as in path.Match, anywhere in a name; a last element ** stands for the element before it and all below
	Why     string
}

// HostCode is the table of them. What runs only when somebody builds, tests or starts the project is not
// in it: that is the project's code, all of which the workload may have written.
var HostCode = []Row{
	{"torno.toml", "it is the policy of the next run here"},

	{".git", "git takes a repository from where it points"},
	{".gitconfig", "repositories include it, and git takes commands from it"},
	{".gitmodules", "git takes places and commands of submodules from it"},
	{".githooks/**", "git is often told to run hooks from there"},
	{".husky/**", "git runs hooks from there"},
	{".pre-commit-config.yaml", "git runs it on commit, through pre-commit's hook"},
	{"lefthook*.*", "git runs it on commit, through lefthook's hook"},
	{".lefthook*.*", "git runs it on commit, through lefthook's hook"},
	{".lefthook/**", "git runs it on commit, through lefthook's hook"},
	{".overcommit.yml", "git runs it on commit, through overcommit's hook"},
	{".lintstagedrc*", "git runs it on commit, through a hook of lint-staged"},
	{"lint-staged.config.*", "git runs it on commit, through a hook of lint-staged"},
	{"commitlint.config.*", "git runs it on commit, through a hook of commitlint"},
	{".hg/hgrc*", "hg runs hooks and extensions from it"},
	{".hg/sharedpath", "hg takes a repository from where it points"},
	{".jj/repo", "jj takes a repository from where it points"},
	{".jj/**/config*.toml", "jj takes commands from it"},
	{".pijul/config", "pijul runs hooks from it"},
	{".bzr/**", "bzr takes commands from its settings"},

	{".envrc", "direnv runs it on entering the directory"},
	{".env", "shells and editors load it on entering the directory"},
	{".autoenv*", "autoenv runs it on entering the directory"},
	{"mise*.toml", "mise runs hooks and sets PATH from it on entering the directory"},
	{".mise*.toml", "mise runs hooks and sets PATH from it on entering the directory"},
	{".mise/**", "mise runs hooks and sets PATH from it on entering the directory"},
	{".config/mise/**", "mise runs hooks and sets PATH from it on entering the directory"},
	{".config/mise*.toml", "mise runs hooks and sets PATH from it on entering the directory"},
	{".rtx*.toml", "mise sets PATH from it on entering the directory"},
	{".tool-versions", "asdf and mise take programs from where it points"},
	{"rust-toolchain", "cargo and editors take the compiler from where it points"},
	{"rust-toolchain.toml", "cargo and editors take the compiler from where it points"},
	{"flake.nix", "direnv evaluates it again on entering the directory"},
	{"flake.lock", "direnv evaluates it again on entering the directory"},
	{"shell.nix", "direnv evaluates it again on entering the directory"},
	{"default.nix", "direnv evaluates it again on entering the directory"},
	{"devenv.*", "direnv evaluates it again on entering the directory"},
	{".devenv*", "direnv evaluates it again on entering the directory"},
	{".direnv/**", "direnv runs what it finds there"},
	{".venv/**", "shells and editors run its python on opening the directory"},
	{"venv/**", "shells and editors run its python on opening the directory"},

	{".vscode/**", "VS Code takes tasks, programs and servers from it"},
	{"*.code-workspace", "VS Code takes tasks, programs and servers from it"},
	{".devcontainer/**", "VS Code runs commands of it on this machine"},
	{".devcontainer.json", "VS Code runs commands of it on this machine"},
	{".idea/**", "IDEs of JetBrains take tasks and programs from it"},
	{".fleet/**", "Fleet takes tasks and programs from it"},
	{".zed/**", "Zed takes tasks, programs and servers from it"},
	{".vim/**", "vim runs it, where exrc is set"},
	{".vimrc", "vim runs it, where exrc is set"},
	{"_vimrc", "vim runs it, where exrc is set"},
	{".exrc", "vi and vim run it, where exrc is set"},
	{".nvimrc", "nvim runs it, where exrc is set"},
	{".nvim.lua", "nvim runs it, where exrc is set"},
	{".lvimrc", "vim runs it, with a plugin"},
	{".dir-locals*.el", "emacs evaluates it on opening a file"},
	{"*.sublime-project", "Sublime Text takes programs and servers from it"},
	{"*.sublime-workspace", "Sublime Text takes programs and servers from it"},
	{".nova/**", "Nova takes tasks and programs from it"},
	{".settings/**", "Eclipse takes builders from it"},
	{".project", "Eclipse takes builders from it"},
	{".externalToolBuilders/**", "Eclipse runs it on opening the project"},

	{".claude/**", "Claude Code runs hooks and servers from it"},
	{".mcp.json", "agents run the servers that it names"},
	{"mcp.json", "agents run the servers that it names"},
	{".cursor/**", "Cursor runs hooks and servers from it"},
	{".codex/**", "Codex runs servers from it"},
	{".gemini/**", "Gemini CLI runs servers from it"},
	{".continue/**", "Continue runs servers from it"},
	{".windsurf/**", "Windsurf runs servers from it"},
	{".roo/**", "Roo Code runs servers from it"},
	{".kiro/**", "Kiro runs hooks and servers from it"},
	{".amazonq/**", "Amazon Q runs servers from it"},
	{".opencode/**", "opencode runs plugins and servers from it"},
	{"opencode.json*", "opencode runs servers from it"},
	{".aider*", "aider takes commands from it"},

	{"Makefile", "shells run parts of it to complete a word after make, editors on opening the directory"},
	{"GNUmakefile", "shells run parts of it to complete a word after make, editors on opening the directory"},
	{"*.mk", "Makefiles include it"},
	{".npmrc", "npm takes programs from it, whatever it is asked to do"},
	{".yarnrc*", "yarn runs the program that it names, whatever it is asked to do"},
	{".yarn/releases/**", "yarn runs it, whatever it is asked to do"},
	{".yarn/plugins/**", "yarn runs it, whatever it is asked to do"},
	{".pnpmfile.*", "pnpm runs it, whatever it is asked to do"},
	{".pnp.*", "editors and node load it"},
	{".cargo/**", "cargo and editors take programs from it"},
	{".bundle/config", "bundler takes programs from it"},

	{".gdbinit", "gdb runs it on starting there"},
	{".lldbinit", "lldb runs it on starting there"},
	{".rdbgrc*", "ruby's debugger runs it on starting there"},
	{".pdbrc*", "python's debugger runs it on starting there"},
	{".Rprofile", "R runs it on starting there"},
	{".RData", "R loads it on starting there"},
	{".Renviron", "R loads it on starting there"},
	{".irbrc", "irb runs it on starting there"},
	{".pryrc", "pry runs it on starting there"},
	{".ghci", "ghci runs it on starting there"},
	{".ocamlinit", "ocaml runs it on starting there"},
	{".iex.exs", "iex runs it on starting there"},
	{".bpythonrc*", "bpython runs it on starting there"},
	{".*shrc", "shells run it on starting, where a home directory links to it"},
	{".profile", "shells run it on starting, where a home directory links to it"},
	{".*_profile", "shells run it on starting, where a home directory links to it"},
	{".zshenv", "shells run it on starting, where a home directory links to it"},
	{".ssh/**", "ssh takes commands and keys from it, where a home directory links to it"},
}

// gitCode is what a git directory holds that git takes commands from. Objects, references, the index and
// the logs are not: commits come back.
var gitCode = []Row{
	{"config", "git takes commands from it"},
	{"config.worktree", "git takes commands from it"},
	{"commondir", "git takes a repository from where it points"},
	{"gitdir", "git takes a repository from where it points"},
	{"hooks/**", "git runs it"},
	{"rebase-merge/**", "git runs commands of a rebase from it"},
	{"rebase-apply/**", "git runs commands of a rebase from it"},
	{"sequencer/**", "git runs commands of a rebase from it"},
	{"worktrees/*/config.worktree", "git takes commands from it"},
	{"worktrees/*/commondir", "git takes a repository from where it points"},
	{"worktrees/*/gitdir", "git takes a repository from where it points"},
	{"modules/**/config", "git takes commands from it"},
	{"modules/**/config.worktree", "git takes commands from it"},
	{"modules/**/commondir", "git takes a repository from where it points"},
	{"modules/**/gitdir", "git takes a repository from where it points"},
	{"modules/**/hooks/**", "git runs it"},
}

// gitHead is the file without which git takes no directory for a repository.
var gitHead = Row{"HEAD", "where no git directory went in: git takes a directory that holds it for a repository, whatever its name"}

// A codeTable says what of a workspace this machine executes.
type codeTable struct {
	rows  []pattern
	git   []pattern
	isGit func(dir string) bool // whether the directory, by its own name, is a git directory
}

func newCodeTable(extra []Row, isGit func(string) bool) *codeTable {
	return &codeTable{compile(append(extra[:len(extra):len(extra)], HostCode...)), compile(gitCode), isGit}
}

// why says why the file called name would be executed here; empty: it would not.
func (t *codeTable) why(name string) string {
	elements := strings.Split(fold(name), "/")
	for i := range elements {
		for _, p := range t.rows {
			if p.match(elements[i:]) {
				return p.why
			}
		}
	}
	inGit := false
	rest := name
	for i := range elements { // elements[:i] is the directory that rest lies in
		dir := strings.TrimSuffix(name[:len(name)-len(rest)], "/")
		if i > 0 && strings.HasSuffix(elements[i-1], ".git") || t.isGit(dir) {
			inGit = true
			for _, p := range t.git {
				if p.match(elements[i:]) && !isSample(rest) {
					return p.why
				}
			}
		}
		_, rest, _ = strings.Cut(rest, "/")
	}
	if !inGit && elements[len(elements)-1] == fold(gitHead.Pattern) {
		return gitHead.Why
	}
	return ""
}

// isSample reports whether git put it there to be looked at and does not run it.
func isSample(rest string) bool {
	return strings.Contains("/"+rest, "/hooks/") && strings.HasSuffix(rest, ".sample")
}

// A pattern is a Row's, with its elements folded.
type pattern struct {
	elements []string
	why      string
}

func compile(rows []Row) []pattern {
	all := make([]pattern, len(rows))
	for i, r := range rows {
		all[i] = pattern{strings.Split(fold(r.Pattern), "/"), r.Why}
	}
	return all
}

// match reports whether the whole of name is what the pattern says.
func (p pattern) match(name []string) bool { return matchElements(p.elements, name) }

func matchElements(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for i := range len(name) + 1 {
				if matchElements(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}

// ligatures are the letters that file systems which ignore case take for several.
var ligatures = strings.NewReplacer("ﬀ", "ff", "ﬁ", "fi", "ﬂ", "fl", "ﬃ", "ffi", "ﬄ", "ffl", "ﬅ", "st", "ﬆ", "st", "ß", "ss", "ẞ", "ss")

// fold makes names alike that some file system takes for the same: those that ignore case, or characters
// that do not show, or dots and spaces at the end, or have streams (a:b) and short names (GIT~1). Where a
// name is folded that the file system tells apart, the file is held for nothing, which does no harm.
func fold(name string) string {
	elements := strings.Split(ligatures.Replace(name), "/")
	for i, e := range elements {
		e = strings.Map(foldRune, e)
		e, _, _ = strings.Cut(e, ":")
		e = strings.TrimRight(e, ". ")
		if strings.HasPrefix(e, "git~") {
			e = ".git"
		}
		elements[i] = e
	}
	return strings.Join(elements, "/")
}

// foldRune returns the ASCII letter, in lower case, that r is but for case, or -1 where r does not show.
func foldRune(r rune) rune {
	if unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
		return -1
	}
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	return unicode.ToLower(least)
}
