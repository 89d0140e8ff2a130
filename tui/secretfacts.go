package tui

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol/control"
)

// secretFacts are all that is known about a secret.
func secretFacts(i *control.SecretInfo, versions []control.SecretVersion, w *world) []fact {
	facts := []fact{{value: i.Name, mood: moodTitle}, {}}
	switch {
	case i.Broken != "":
		return append(facts, fact{"broken", i.Broken, moodBad}, fact{}, fact{value: "It is refused until it is set anew (r) or a backup is restored.", mood: moodDim})
	case i.Missing:
		return append(facts, fact{value: "The file of " + i.Agent + " that was trusted names it, and it is not set. Press r to set it.", mood: moodWarn})
	}
	facts = append(facts,
		fact{"agent", i.Agent, moodText}, fact{"version", strconv.Itoa(i.Version), moodText},
		fact{"set", i.Created.Local().Format(time.DateTime) + ", " + since(w.now, i.Created, w.still) + " ago", moodText},
		fact{"by", i.By, moodDim}, expiryFact(i, w), fact{"preset", i.Preset, moodText}, fact{"goes to", strings.Join(i.Audience, "\n"), moodText},
	)
	facts = append(facts, howFacts(i)...)
	facts = append(facts, fact{"new version", map[control.Rotation]string{
		control.RotationFollow: "sessions take it at their next request", "": "", control.RotationPin: "sessions keep theirs until they end",
	}[cmp.Or(i.Rotation, control.RotationPin)], moodText})
	facts = append(facts, useFacts(i, w)...)
	return append(facts, versionFacts(i, versions, w)...)
}

// versionFacts are the versions that there were, the newest first.
func versionFacts(i *control.SecretInfo, versions []control.SecretVersion, w *world) []fact {
	if len(versions) == 0 || versions[0].Agent != i.Agent || versions[0].Name != i.Name {
		return nil
	}
	facts := []fact{{}, {value: "Versions", mood: moodTitle}}
	moods := map[control.VersionState]mood{control.VersionCurrent: moodGood, control.VersionRevoked: moodBad, control.VersionExpired: moodBad}
	for _, v := range slices.Backward(versions) {
		m, ok := moods[v.State]
		if !ok {
			m = moodDim
		}
		text := fmt.Sprintf("%s, %s, set %s ago", v.State, plural(int(v.Uses), "use"), since(w.now, v.Created, w.still))
		if v.Sessions > 0 {
			text += ", in " + plural(v.Sessions, "live session")
		}
		facts = append(facts, fact{strconv.Itoa(v.Version), text, m})
	}
	return facts
}

// expiryFact says until when the secret can be used, or that it can't.
func expiryFact(i *control.SecretInfo, w *world) fact {
	switch {
	case !i.Revoked.IsZero():
		return fact{"revoked", i.Revoked.Local().Format(time.DateTime) + "; set it anew with r", moodBad}
	case i.Expires.IsZero():
		return fact{"expires", "never", moodDim}
	}
	return fact{"expires", i.Expires.Local().Format(time.DateTime) + ", " + expiry(i, w.now).text, expiry(i, w.now).mood}
}

func howFacts(i *control.SecretInfo) []fact {
	var facts []fact
	switch i.Inject.Scheme {
	case control.SchemeBearer:
		facts = append(facts, fact{"sent as", "Authorization: Bearer {" + i.Name + "}", moodText})
	case control.SchemeHeader:
		var lines []string
		for _, f := range i.Inject.Fields {
			lines = append(lines, f.Name+": "+f.Value)
		}
		facts = append(facts, fact{"sent as", strings.Join(lines, "\n"), moodText})
	default:
		facts = append(facts, fact{"sent as", i.Inject.String(), moodText})
	}
	for _, place := range i.Replace {
		facts = append(facts, fact{"replaced in", string(place), moodText})
	}
	if i.Overlap {
		facts = append(facts, fact{"overlaps", "it may share bytes with what the workload can see, and is not masked where it does", moodWarn})
	}
	if i.Expose != control.ExposeNone {
		facts = append(facts, fact{"exposed", "a variable inside the VM: the agent's code can read it", moodWarn})
	}
	if i.Weak {
		facts = append(facts, fact{"weak", "fewer than 16 random bytes: outside the guarantee, answers are not masked for it", moodWarn})
	}
	return facts
}

// lastUses is how many requests are shown that a secret was used for.
const lastUses = 8

// useFacts are where a secret is used: the sessions that have it, and the last requests that it was sent with.
func useFacts(i *control.SecretInfo, w *world) []fact {
	facts := []fact{{}, {value: "Where used", mood: moodTitle}}
	users := w.users(i.Agent, i.Name)
	for _, u := range users {
		facts = append(facts, fact{"session", u.ID + ", " + u.State + ", " + since(w.now, u.Created, w.still), moodText})
	}
	if len(users) == 0 {
		facts = append(facts, fact{"session", "none that is live", moodDim})
	}
	if i.Uses > 0 {
		facts = append(facts, fact{"in all", fmt.Sprintf("%d requests, the last %s ago", i.Uses, since(w.now, i.LastUsed, w.still)), moodText})
	}
	n := 0
	for j := len(w.log.entries) - 1; j >= 0 && n < lastUses; j-- {
		if e := &w.log.entries[j]; e.Secret == i.Name && e.Agent == i.Agent {
			facts = append(facts, fact{clock(w.now, e.Time), e.Method + " " + e.target(), moodText})
			n++
		}
	}
	return facts
}
