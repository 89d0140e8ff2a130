package boot

import "testing"

// What is added stands first, once, and nothing else is lost.
func TestKnownHosts(t *testing.T) {
	ours := []string{"git.example.org ssh-ed25519 AAAA", "[git.example.org]:2222 ssh-ed25519 BBBB"}
	const text = "git.example.org ssh-ed25519 AAAA\n[git.example.org]:2222 ssh-ed25519 BBBB\n"
	for old, want := range map[string]string{
		"": text, text: text, "other ssh-rsa CCCC": text + "other ssh-rsa CCCC\n", "# of the image\n" + text: text + "# of the image\n",
	} {
		if got := knownHosts(old, ours); got != want {
			t.Errorf("%q becomes %q, want %q", old, got, want)
		}
	}
	if got := knownHosts("", []string{"a ssh-rsa A\n@cert-authority * ssh-rsa B"}); got != "" {
		t.Errorf("two lines in one become %q", got)
	}
}
