package control

// A Route is one request of the control API.
type Route struct {
	Method string
	Path   string   // {id} stands for a session's id
	Query  []string // parameters, each optional unless Does says otherwise
	In     any      // zero value of the body; nil: none
	Out    any      // zero value of the answer
	Lines  bool     // the answer is any number of Out, one a line (application/x-ndjson)
	Does   string   // what it does, for people
}

// Routes are all requests of the control API, in the order in which docs/control-api.md explains them.
var Routes = []Route{
	{Method: "GET", Path: PathHealth, Out: Health{}, Does: "Says that the broker is there, and which one."},
	{Method: "GET", Path: PathEvents, Query: []string{"kind", "agent"}, Out: Event{}, Lines: true,
		Does: "Tells what happens from now on, until the connection is closed. `kind` may be repeated. 32 subscribers at once; one that leaves 256 events unread is cut, and its last line is `stream_cut`."},

	{Method: "POST", Path: PathReload, Out: Reloaded{}, Does: "Reads the operator's file again. Sessions that are live are only ever narrowed by it. `invalid` where the file is wrong, and then nothing has changed."},

	{Method: "GET", Path: PathSessions, Out: []SessionInfo{}, Does: "The sessions that are live, oldest first."},
	{Method: "POST", Path: PathSessions, In: SessionRequest{}, Out: SessionCreated{}, Does: "Registers one run of an agent and listens for its guest."},
	{Method: "GET", Path: PathSession + "{id}", Out: SessionInfo{}, Does: "One session, also one that has ended in the last 30 days."},
	{Method: "DELETE", Path: PathSession + "{id}", Out: SessionInfo{}, Does: "Revokes a session: what it has open is cut within a second, and nothing is answered again."},
	{Method: "POST", Path: PathSession + "{id}/end", Out: SessionInfo{}, Does: "Ends a session whose workload has ended."},
	{Method: "POST", Path: PathSession + "{id}/resume", Out: SessionInfo{}, Does: "Lets a session go on that was suspended because hosts repeated its secrets."},
	{Method: "POST", Path: PathSession + "{id}/prove", Out: Proof{}, Does: "Searches the memory of the session's VM for its secrets. The memory comes as a descriptor beside the request (SCM_RIGHTS), from the process that registered the session."},
	{Method: "DELETE", Path: PathSession + "{id}/grants", Query: []string{"grant"}, Out: SessionInfo{}, Does: "Takes back what a person has allowed for the rest of the session: such requests are asked about anew, and what is open to that host is cut within a second. `grant` is its id, and must be there."},
	{Method: "POST", Path: PathConsole, In: ConsoleReport{}, Out: SessionInfo{}, Does: "Keeps what a session's VM said last on its console."},

	{Method: "GET", Path: PathApprovals, Out: []Approval{}, Does: "The requests that wait for a person, that which has waited longest first."},
	{Method: "POST", Path: PathApprovals, In: ApprovalDecision{}, Out: Approval{}, Does: "Decides on one of them. `not_found` where it was decided, its time is over or its guest went away."},
	{Method: "POST", Path: PathPolicyCheck, In: PolicyCheck{}, Out: PolicyVerdict{}, Does: "Explains what would happen to a request. Nothing is sent."},
	{Method: "GET", Path: PathTrust, Query: []string{"agent"}, Out: TrustedFile{}, Does: "The agent's approved file. `agent` must be there."},
	{Method: "PUT", Path: PathTrust, In: TrustedFile{}, Out: TrustedFile{}, Does: "Approves an agent file, byte for byte."},

	{Method: "GET", Path: PathPublicKey, Out: PublicKey{}, Does: "What secrets are sealed to."},
	{Method: "GET", Path: PathPresets, Query: []string{"name"}, Out: []Preset{}, Does: "The services that torno knows; with `name` the one that a secret's name means."},
	{Method: "GET", Path: PathSecrets, Query: []string{"agent", "after", "limit"}, Out: []SecretInfo{},
		Does: "Secrets by name, never by value. With `limit`, 1 to 10,000, or `after`, AGENT/NAME, a part of the list, in the order of agents and names: the next part follows on the last entry of this one."},
	{Method: "POST", Path: PathSecrets, In: []SealedSecret{}, Out: []SecretInfo{}, Does: "Sets sealed secrets, all or none."},
	{Method: "DELETE", Path: PathSecrets, Query: []string{"agent", "name"}, Out: SecretInfo{}, Does: "Deletes a secret and ends its use at once. Both parameters must be there."},
	{Method: "GET", Path: PathNextVersion, Query: []string{"agent", "name"}, Out: NextVersion{}, Does: "The version that a secret must be sealed as."},
	{Method: "GET", Path: PathHistory, Query: []string{"agent", "name"}, Out: []SecretVersion{}, Does: "A secret's versions, oldest first."},
	{Method: "POST", Path: PathRevoke, Query: []string{"agent", "name", "version"}, Out: []SecretVersion{}, Does: "Ends the use of a version at once, or of all of them, and returns those."},
	{Method: "POST", Path: PathImport, In: Import{}, Out: []SecretInfo{}, Does: "Sets secrets that were sealed on another machine, all or none."},

	{Method: "GET", Path: PathPlugins, Out: []PluginInfo{}, Does: "The plugins that the operator's file declares, by name. Their programs are read, to say whether they are the declared ones."},
	{Method: "POST", Path: PathPluginCheck, In: PluginCheck{}, Out: PluginReport{}, Does: "Starts a plugin apart from the one that serves, tries it, and says how far it got. What it fetched is not shown."},

	{Method: "GET", Path: PathKey, Out: KeyInfo{}, Does: "What can be said of the broker's private key."},
	{Method: "POST", Path: PathUnlock, In: KeyUnlock{}, Out: KeyInfo{}, Does: "Gives the passphrase to a broker that waits for it. Until then it answers this, `/v1/health` and `/v1/key`, and all else with `locked`. A wrong one is `untrusted`, and the next is `busy` for a second, then two, up to a minute."},
	{Method: "POST", Path: PathKey + "/rotate", Out: KeyInfo{}, Does: "Begins to seal all to a new key, and returns at once."},
	{Method: "POST", Path: PathKey + "/protect", In: KeyProtection{}, Out: KeyInfo{}, Does: "Changes what opens the key file."},
	{Method: "POST", Path: PathKey + "/split", In: KeySplit{}, Out: KeyInfo{}, Does: "Records that shares of the key were made."},
	{Method: "GET", Path: PathStore + "/backup", Does: "A consistent backup of the store, as bytes."},
	{Method: "POST", Path: PathStore + "/verify", Out: StoreVerdict{}, Does: "Checks all that is stored against its manifest and the audit."},

	{Method: "GET", Path: PathAudit, Query: []string{"last", "follow"}, Out: AuditRecord{}, Lines: true, Does: "The last records, 10 unless `last` says otherwise; with `follow=1` also those to come."},
	{Method: "POST", Path: PathAuditQuery, In: AuditFilter{}, Out: AuditRecord{}, Lines: true, Does: "The records that a filter fits; that of an exchange has its end as the member `end`."},
	{Method: "POST", Path: PathAuditVerify, In: AuditCheck{}, Out: AuditVerdict{}, Does: "Checks the audit's chain, and names the first bad record."},
	{Method: "POST", Path: PathAuditCheckpoint, Out: AuditRecord{}, Lines: true, Does: "Writes a checkpoint and returns it, one line."},
	{Method: "GET", Path: PathAuditKeys, Out: AuditKeys{}, Does: "The public keys that checkpoints are signed with."},
}
