package main_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dockerScript starts dockerd, loads an image and runs containers of it. Each answer of a container is behind the
// name of what it shows.
const dockerScript = `exec 2>&1
dockerd >/root/dockerd.log 2>&1 &
n=0; until docker version >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 300 ] || { tail -30 /root/dockerd.log; exit 1; }; sleep 1; done
docker info -f 'driver {{.Driver}} cgroup {{.CgroupVersion}}'
docker load -qi image.tar
ca="-v /run/torno-guest/ca-bundle.pem:/etc/ssl/certs/ca-certificates.crt:ro"
echo trusting; docker run --rm $ca tiny /main https://files.example.org/hello https://denied.example.net/ http://denied.example.net/ https://192.0.2.77/
echo not trusting; docker run --rm tiny /main https://files.example.org/hello
echo host network; docker run --rm --network host $ca tiny /main https://files.example.org/hello
echo limited; docker run --rm -m 64m --pids-limit 50 $ca tiny /main https://files.example.org/hello
printf 'FROM tiny\nRUN ["/main", "http://denied.example.net/"]\n' | docker build -q - >/dev/null && echo built
cat /proc/self/cgroup; docker ps -aq | wc -l`

// Root runs a container engine. What its containers dial is captured as everything else is, they trust the session
// once its bundle is mounted over theirs, and the filter holds in them too.
//
// The image takes a minute to make, and emulating dockerd another, so it must be asked for: make test-docker.
func TestVMRootDocker(t *testing.T) {
	if os.Getenv("TORNO_DOCKER") == "" {
		t.Skip("needs the image docker; try: make test-docker")
	}
	needVM(t)
	h := newAgentHouse(t)
	h.write("torno.toml", rootFile)
	tinyImage(t, filepath.Join(h.work, "image.tar"))
	file := filepath.Join(h.dir, "proof.json")
	r := h.runWith([]string{"--image", "docker", "--proof-file", file}, "/bin/sh", "-c", dockerScript)
	want := `driver overlay2 cgroup 2
Loaded image: tiny:latest
trusting
200  ok GET /hello
403 denied
403 denied
403 denied
not trusting
true
host network
200  ok GET /hello
limited
200  ok GET /hello
built
0::/init
0
`
	var got strings.Builder // without what the answers say besides
	for line := range strings.Lines(r.stdout) {
		for _, short := range []string{"403 denied", "true"} {
			if strings.HasPrefix(line, short+" ") {
				line = short + "\n"
			}
		}
		got.WriteString(line)
	}
	if got.String() != want || r.code != 0 {
		t.Errorf("exit %d, %q, want %q (stdout %q, stderr %q)", r.code, got.String(), want, r.stdout, r.stderr)
	}
	if proofs := readProofs(t, file); len(proofs) == 0 || proofs[len(proofs)-1].Outcome != "clean" {
		t.Errorf("proofs %+v", proofs)
	}
}

// tinyImage writes an image of one program, as docker save does.
func tinyImage(t *testing.T, file string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "main")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./testdata/container")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	main, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	layer := archiveOf(t, "main", string(main))
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(layer))
	name := fmt.Sprintf("%x.json", sha256.Sum256([]byte(config)))
	manifest := fmt.Sprintf(`[{"Config":%q,"RepoTags":["tiny:latest"],"Layers":["layer.tar"]}]`, name)
	if err := os.WriteFile(file, archiveOf(t, name, config, "layer.tar", string(layer), "manifest.json", manifest), 0o644); err != nil {
		t.Fatal(err)
	}
}
