package redact

import "encoding/binary"

// Marks of escapes are everywhere in content that is no text, and each costs a wrong guess. A run with an escape is at
// least a byte longer than the shortest without, and all of it are bytes that runs consist of. So where that has 12, of
// all groups of seven bytes that are seven apart one lies wholly within it, and where none of a block's is of such
// bytes alone there is no need to look for marks.
const (
	groupSize = 7                   // bytes
	groupHigh = highs >> 8          // what no byte of a group of ASCII has
	groupRun  = 2*groupSize - 2     // bytes of the shortest run at least
	blockSize = 4 * groupSize * 144 // bytes
	textLike  = 16                  // groups of ASCII of which a block is taken to be text: looking closer costs more
	smallText = 4 * groupSize * 32  // bytes that are not worth it
)

// stretch returns the next piece of b that must be searched for escapes, from the first block at or behind done that
// may hold a group of a run up to the last in a row, with what may belong to runs on both sides. Next is where to go on.
// Where there is none it is empty.
func (m *Matcher) stretch(b []byte, done int) (from, to, next int) {
	if len(m.escapes) == 0 {
		return 0, 0, len(b)
	}
	for done < len(b) && !m.textual(b, done) {
		done += blockSize
	}
	if done >= len(b) {
		return 0, 0, len(b)
	}
	for next = done; next < len(b) && m.textual(b, next); {
		next += blockSize
	}
	return max(0, done-history), min(len(b), next+history), next
}

// textual reports whether the block of b at i may hold a group that runs with escapes consist of.
func (m *Matcher) textual(b []byte, i int) bool {
	if !m.ascii || m.shortest < groupRun || len(b) < smallText {
		return true
	}
	end, ascii := min(i+blockSize, len(b)), 0
	for ; i < end && i+4*groupSize+1 <= len(b); i += 4 * groupSize {
		w := b[i : i+4*groupSize+1 : i+4*groupSize+1]
		x0, x1 := binary.LittleEndian.Uint64(w)&groupHigh, binary.LittleEndian.Uint64(w[groupSize:])&groupHigh
		x2, x3 := binary.LittleEndian.Uint64(w[2*groupSize:])&groupHigh, binary.LittleEndian.Uint64(w[3*groupSize:])&groupHigh
		if int64((x0-1)|(x1-1)|(x2-1)|(x3-1)) >= 0 {
			continue // none of them is 0
		}
		for k, x := range [4]uint64{x0, x1, x2, x3} {
			if x != 0 {
				continue
			}
			if ascii++; ascii == textLike || m.spellsAll(w[k*groupSize:(k+1)*groupSize]) {
				return true
			}
		}
	}
	for ; i < end; i += groupSize {
		if m.spellsAll(b[i:min(i+groupSize, len(b))]) {
			return true
		}
	}
	return false
}

func (m *Matcher) spellsAll(b []byte) bool {
	for _, c := range b {
		if !m.spelled[c] {
			return false
		}
	}
	return true
}
