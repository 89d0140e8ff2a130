package awake

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnviron(t *testing.T) {
	for _, tt := range []struct{ env, want []string }{
		{nil, []string{Variable}},
		{[]string{"A=1"}, []string{"A=1", Variable}},
		{[]string{"GODEBUG=", "A=1"}, []string{"A=1", Variable}},
		{[]string{"GODEBUG=http2debug=1", "A=1"}, []string{"A=1", "GODEBUG=http2debug=1," + Setting}},
	} {
		if diff := cmp.Diff(tt.want, Environ(tt.env)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.env, diff)
		}
	}
}

// TestEnsure starts over once, as the same process with the same arguments.
func TestEnsure(t *testing.T) {
	const child = "AWAKE_CHILD"
	if os.Getenv(child) != "" {
		Ensure()
		os.Stdout.WriteString(os.Getenv(name) + "\n")
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestEnsure$")
	cmd.Env = []string{child + "=1"}
	out, err := cmd.Output()
	if got, _, _ := strings.Cut(string(out), "\n"); err != nil || got != Setting {
		t.Errorf("%v: %q, want %q first", err, out, Setting)
	}
}
