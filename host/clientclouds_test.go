package main_test

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// newCloudHouse is a house whose agent has a secret for each cloud, and no agent file.
func newCloudHouse(t *testing.T) *house {
	t.Helper()
	hosts, key := newGoogle(t)
	maps.Copy(hosts, newAzure(t))
	h := newHouse(t, "\n"+newGateway(t).toml+serveHosts(t, hosts))
	h.write("key.json", key)
	h.write("aws.key", gatewayKeyID+":"+gatewaySecret)
	h.write("secret", azureSecret)
	return h
}

// setClouds sets the three secrets.
func (h *house) setClouds() {
	h.t.Helper()
	h.must("secrets", "set", "my-agent", "AWS_PROD=@aws.key", "--as", "sigv4:service=s3,region=eu-central-1", "--host", gatewayHost)
	h.must("secrets", "set", "my-agent", "GCP_KEY=@key.json", "--as", "google", "--host", "storage.googleapis.com")
	h.must("secrets", "set", "my-agent", "GCP_RUN=@key.json", "--as", "google:audience=https://my-service.a.run.app", "--host", "my-service.a.run.app")
	h.must("secrets", "set", "my-agent", "AZ_SECRET=@secret", "--as", "azure:tenant="+azureTenant+",id="+azureClient, "--host", "management.azure.com")
}

// withPython runs a program that finds the client packages.
func (h *house) withPython(program string) result {
	h.t.Helper()
	dir := clients(h.t)
	h.write("client.py", program)
	return h.withClients(dir, "/usr/bin/env", "PYTHONPATH="+dir+"/python", "/usr/bin/python3", "client.py")
}

// shell runs a command line on the host, with torno in its path.
func (h *house) shell(line string) result {
	h.t.Helper()
	torno := h.command()
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Dir, cmd.Env = torno.Dir, append(torno.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("%s: %v", line, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// expect compares what a client printed.
func (r result) expect(t *testing.T, want string) {
	t.Helper()
	if r.stdout != want || r.code != 0 {
		t.Errorf("stdout %q, want %q; exit %d, stderr %q", r.stdout, want, r.code, r.stderr)
	}
}

// boto3 and the AWS command find keys with nothing configured, and by each of the ways that containers have.
func TestClientMetadataBoto(t *testing.T) {
	h := newCloudHouse(t)
	h.setClouds()
	const program = `import boto3, os
from botocore.config import Config
assert "AWS_ACCESS_KEY_ID" not in os.environ and os.environ["AWS_REGION"] == "eu-central-1"
session = boto3.Session()
c = session.get_credentials()
print(c.method, c.get_frozen_credentials().access_key[:10], c.get_frozen_credentials().token[:10])
assert c.refresh_needed(3700) and not c.refresh_needed(3000)
s3 = session.client("s3", config=Config(s3={"addressing_style": "path"}))
s3.put_object(Bucket="things", Key="a b/ü.txt", Body=b"hello")
c._expiry_time = c._time_fetcher()  # it asks again
print(s3.get_object(Bucket="things", Key="a b/ü.txt")["Body"].read().decode())
`
	h.write("client.py", program)
	h.run("/usr/bin/python3", "client.py").expect(t, "iam-role tornoInert tornoInert\nhello\n")
	for _, uri := range []string{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials", "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.2/v2/credentials/4711"} {
		h.run("/usr/bin/env", uri, "AWS_CONTAINER_AUTHORIZATION_TOKEN=anything", "/usr/bin/python3", "client.py").expect(t, "container-role tornoInert tornoInert\nhello\n")
	}
	h.sh(`set -e
cd "$HOME" && /usr/bin/aws configure set default.s3.addressing_style path
head -c 20000000 /dev/urandom >big
/usr/bin/aws s3 cp --no-progress big s3://things/in/big >/dev/null
/usr/bin/aws s3 cp --no-progress s3://things/in/big - | cmp big -
/usr/bin/aws s3 ls s3://things/in/ | wc -l`).expect(t, "1\n")
}

// The SDK for JavaScript, by its default chain and by each provider in it.
func TestClientMetadataNode(t *testing.T) {
	h := newCloudHouse(t)
	h.setClouds()
	dir := clients(t)
	h.write("s3.cjs", `const modules = "`+dir+`/node/node_modules/";
const {S3Client, PutObjectCommand, GetObjectCommand} = require(modules + "@aws-sdk/client-s3");
const {fromInstanceMetadata, fromContainerMetadata} = require(modules + "@aws-sdk/credential-provider-node/../../@smithy/credential-provider-imds");
const {defaultProvider} = require(modules + "@aws-sdk/credential-provider-node");
const {fromHttp} = require(modules + "@aws-sdk/credential-provider-http");
(async () => {
  const run = async (name, credentials) => {
    const s3 = new S3Client({forcePathStyle: true, credentials});
    await s3.send(new PutObjectCommand({Bucket: "things", Key: name, Body: "hello"}));
    const r = await s3.send(new GetObjectCommand({Bucket: "things", Key: name}));
    const c = await s3.config.credentials();
    console.log(name, await r.Body.transformToString(), c.accessKeyId.slice(0, 10), c.sessionToken.slice(0, 10), c.expiration - Date.now() > 3e6);
  };
  await run("default", defaultProvider());
  await run("instance", fromInstanceMetadata());
  process.env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI = "/v2/credentials";
  await run("task", fromContainerMetadata());
  delete process.env.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI;
  await run("pod", fromHttp({awsContainerCredentialsFullUri: "http://169.254.170.23/v1/credentials", awsContainerAuthorizationToken: "anything"}));
})().catch(e => { console.error(e); process.exit(1); });
`)
	const as = " hello tornoInert tornoInert true\n"
	h.withClients(dir, "node", "s3.cjs").expect(t, "default"+as+"instance"+as+"task"+as+"pod"+as)
}

// Google's own libraries: what credentials are there, an upload and a download, an id token.
func TestClientMetadataGoogle(t *testing.T) {
	h := newCloudHouse(t)
	h.setClouds()
	h.withPython(`import google.auth, google.auth.compute_engine, google.auth.transport.requests, google.oauth2.id_token, requests
from google.cloud import storage
credentials, project = google.auth.default()
print(type(credentials).__name__, project)
request = google.auth.transport.requests.Request()
credentials.refresh(request)
print(credentials.service_account_email, credentials.token[:15], credentials.expired, credentials.universe_domain)
bucket = storage.Client().bucket("things")
bucket.blob("greeting").upload_from_string("hello")
print(b"hello" in bucket.blob("greeting").download_as_bytes(checksum=None), [b.name for b in bucket.list_blobs()])
token = google.oauth2.id_token.fetch_id_token(request, "https://my-service.a.run.app")
print(requests.get("https://my-service.a.run.app/", headers={"Authorization": "Bearer " + token}).text, end="")
c = google.auth.compute_engine.IDTokenCredentials(request, "https://my-service.a.run.app", use_metadata_identity_endpoint=True)
c.refresh(request)
print(c.token.rsplit(".")[-1][:10], c.expired)
`).expect(t, "Credentials my-project\nrobot@my-project.iam.gserviceaccount.com ya29.tornoInert False googleapis.com\nTrue ['greeting']\nserved\ntornoInert False\n")
	dir := clients(t)
	h.write("google.cjs", `const {GoogleAuth} = require("`+dir+`/node/node_modules/google-auth-library");
(async () => {
  const auth = new GoogleAuth({scopes: "https://www.googleapis.com/auth/cloud-platform"});
  const client = await auth.getClient();
  console.log(client.constructor.name, await auth.getProjectId());
  const r = await client.request({url: "https://storage.googleapis.com/storage/v1/b/things/o"});
  console.log(r.data.items[0].name);
  const run = await auth.getIdTokenClient("https://my-service.a.run.app");
  console.log((await run.request({url: "https://my-service.a.run.app/", responseType: "text"})).data.trim());
})().catch(e => { console.error(e); process.exit(1); });
`)
	h.withClients(dir, "node", "google.cjs").expect(t, "Compute my-project\ngreeting\nserved\n")
}

// Azure's own library, by the credential of a machine and by the default chain.
func TestClientMetadataAzure(t *testing.T) {
	h := newCloudHouse(t)
	h.setClouds()
	h.withPython(`import time
from azure.core import PipelineClient
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
scope = "https://management.azure.com/.default"
for credential in (ManagedIdentityCredential(), DefaultAzureCredential(), ManagedIdentityCredential(client_id="`+azureClient+`")):
    token = credential.get_token(scope)
    print(token.token.rsplit(".")[-1][:10], 3000 < token.expires_on - time.time() <= 3600)
    client = PipelineClient("https://management.azure.com", policies=[BearerTokenCredentialPolicy(credential, scope)])
    print(client.send_request(HttpRequest("GET", "https://management.azure.com/subscriptions?api-version=2020-01-01")).json()["value"][0]["subscriptionId"])
try:
    ManagedIdentityCredential().get_token("https://vault.azure.net/.default")
except ClientAuthenticationError as e:
    print("no secret of this session is for this resource" in str(e))
`).expect(t, strings.Repeat("tornoInert True\ns1\n", 3)+"True\n")
}

// TestCloudsPage runs every command of docs/clouds.md.
func TestCloudsPage(t *testing.T) {
	page, err := os.ReadFile("../docs/clouds.md")
	if err != nil {
		t.Fatal(err)
	}
	h := newCloudHouse(t)
	dir := clients(t)
	h.write("greeting", "hello")
	h.must("secrets", "set", "seed", "AWS_PROD=@aws.key", "--as", "sigv4:service=s3,region=eu-central-1", "--host", gatewayHost)
	r := h.torno("run", "--agent", "seed", "--isolation", "namespace", "--", "curl", "-sS", "-T", "greeting", "https://"+gatewayHost+"/my-bucket/greeting")
	if r.code != 0 || r.stdout != "" {
		t.Fatalf("%+v", r)
	}
	inside := "torno run --agent my-agent --isolation namespace --mount-ro " + dir + " -- "
	libraries := " /usr/bin/env PYTHONPATH=" + filepath.Join(dir, "python") + " /usr/bin/python3 "
	var got string
	commands := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.Replace(line, "torno run --agent my-agent -- ", inside, 1)
			if strings.Contains(line, "boto3") { // which is Debian's, with what it needs
				line = strings.Replace(line, " python3 ", " /usr/bin/python3 ", 1)
			}
			line = strings.Replace(line, " python3 ", libraries, 1)
			r := h.shell(strings.Replace(line, " aws ", " /usr/bin/aws ", 1))
			if r.code != 0 {
				t.Errorf("%s: exit %d, %s%s", line, r.code, r.stdout, r.stderr)
			}
			got += r.stdout
			commands++
		}
	}
	for _, want := range []string{"5 greeting\n1\n", "['greeting']\n", "eyJhbGciOiJSUzI1NiIs\n", "my-project", `"resource":"https://management.azure.com"`, `"AccessKeyId":"tornoInert`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if commands < 10 {
		t.Errorf("%d commands", commands)
	}
}
