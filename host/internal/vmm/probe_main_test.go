package vmm

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ExecCommand {
		os.Exit(Exec(os.Args[2:]))
	}
	os.Exit(m.Run())
}
