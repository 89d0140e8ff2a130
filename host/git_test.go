package main_test

import "testing"

// TestGitOverHTTP clones a private repository and pushes to it with the real git, which has no password: the broker has
// one. Where git itself sends another password, ours goes instead.
func TestGitOverHTTP(t *testing.T) {
	h := newHouse(t, "")
	h.must("secrets", "set", "my-agent", "FORGE_TOKEN="+githubToken, "--host", "forge.example.org", "--as", "git")
	r := h.sh(`cd "$(mktemp -d)" && export GIT_TERMINAL_PROMPT=0
git clone -q https://forge.example.org/private.git a && cat a/README && cd a
git -c user.name=t -c user.email=t@example.org commit -q --allow-empty -m "from inside"
git push -q origin HEAD:main && cd .. && git clone -q https://me:own-password@forge.example.org/private.git b
git -C b log -1 --format=%s`)
	if r.code != 0 || r.stdout != "cloned through the hatch\nfrom inside\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	h.must("secrets", "set", "my-agent", "FORGE_TOKEN=another-0123456789abcdef", "--host", "forge.example.org", "--as", "git")
	if r := h.sh(`GIT_TERMINAL_PROMPT=0 git ls-remote https://forge.example.org/private.git`); r.code == 0 {
		t.Errorf("the control: with another token: %q", r.stdout)
	}
}
