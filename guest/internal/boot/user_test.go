package boot

import "testing"

func TestReplaceID(t *testing.T) {
	const line = "agent:x:1000:1000::/home/agent:/bin/sh"
	for old, want := range map[string]string{
		"": line + "\n",
		"root:x:0:0::/root:/bin/sh\njoe:x:1000:1000::/home/joe:/bin/sh\nlast:x:2:2::/:": "root:x:0:0::/root:/bin/sh\nlast:x:2:2::/:\n" + line + "\n",
		"agent:x:77:77::/:/bin/false\nodd\n":                                            "odd\n" + line + "\n",
		line + "\n":                                                                     line + "\n",
	} {
		if got := replaceID(old, "1000", line); got != want {
			t.Errorf("replaceID(%q) = %q, want %q", old, got, want)
		}
	}
}
