package broker

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == PluginExecCommand {
		os.Exit(ExecPlugin())
	}
	goleak.VerifyTestMain(m)
}
