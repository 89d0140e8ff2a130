package redact

// An Escape is a way to spell single characters that may be used for each of them or for none.
type Escape struct {
	mark     byte
	at       func(b []byte) (c byte, n int) // what the escape at the beginning of b stands for, and its length; 0: none
	begun    func(b []byte) bool            // whether all of b, behind the mark, may be the beginning of one
	second   func(c byte) string            // what may stand behind the mark where the escape stands for c
	alphabet string                         // what escapes consist of, besides letters, digits and what they stand for
	longest  int                            // bytes of one escape
}

// open reports whether b is an escape that has begun and not ended.
func (e *Escape) open(b []byte) bool {
	if len(b) == 0 || len(b) >= e.longest || b[0] != e.mark || !e.begun(b[1:]) {
		return false
	}
	_, n := e.at(b)
	return n == 0
}

// The escapes of the table.
var (
	percentEscape = Escape{mark: '%', at: percentAt, begun: percentBegun, second: percentSecond, alphabet: "%", longest: 3}
	jsonEscape    = Escape{mark: '\\', at: jsonAt, begun: jsonBegun, second: jsonSecond, alphabet: `\`, longest: 6}
	htmlEscape    = Escape{mark: '&', at: htmlAt, begun: htmlBegun, second: htmlSecond, alphabet: "&#;", longest: longestEntity}
)

// percentAt reads %XX (RFC 3986 §2.1).
func percentAt(b []byte) (byte, int) {
	if len(b) < 3 {
		return 0, 0
	}
	high, low := unhex[b[1]], unhex[b[2]]
	if high|low > 15 {
		return 0, 0
	}
	return high<<4 | low, 3
}

func percentBegun(b []byte) bool { return len(b) == 0 || len(b) == 1 && unhex[b[0]] <= 15 }

func percentSecond(c byte) string {
	const lower, upper = "0123456789abcdef", "0123456789ABCDEF"
	return lower[c>>4:c>>4+1] + upper[c>>4:c>>4+1]
}

// jsonAt reads an escape of a JSON string (RFC 8259 §7) that stands for one byte.
func jsonAt(b []byte) (byte, int) {
	if len(b) >= 6 && b[1] == 'u' {
		high, low := unhex[b[4]], unhex[b[5]]
		if b[2] != '0' || b[3] != '0' || high|low > 15 {
			return 0, 0
		}
		return high<<4 | low, 6
	}
	if len(b) >= 2 && jsonShort[b[1]] != 0 {
		return jsonShort[b[1]], 2
	}
	return 0, 0
}

// jsonShort says what a backslash before a byte stands for.
var jsonShort = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func jsonBegun(b []byte) bool {
	const form = "u00"
	n := min(len(b), len(form))
	return string(b[:n]) == form[:n] && (len(b) <= len(form) || len(b) == len(form)+1 && unhex[b[len(form)]] <= 15)
}

func jsonSecond(c byte) string {
	for short, meant := range jsonShort {
		if meant == c && meant != 0 {
			return "u" + string(rune(short))
		}
	}
	return "u"
}

// longestEntity bounds a character reference, leading zeros and semicolon included.
const longestEntity = 12 // bytes

// htmlAt reads a character reference that stands for one byte: decimal, hexadecimal, or a name of ASCII
// punctuation (HTML §13.5).
func htmlAt(b []byte) (byte, int) {
	b = b[:min(len(b), longestEntity)]
	switch {
	case len(b) < len("&#0;"):
		return 0, 0
	case b[1] != '#':
		return htmlNamed(b)
	case b[2]|0x20 == 'x':
		return htmlNumber(b, len("&#x"), 16)
	}
	return htmlNumber(b, len("&#"), 10)
}

// htmlTwo reads a reference of two decimal digits, which is what most are and small enough to be inlined.
func htmlTwo(b []byte) (byte, int) {
	if len(b) < len("&#00;") || b[1] != '#' || b[4] != ';' {
		return 0, 0
	}
	tens, units := unhex[b[2]], unhex[b[3]]
	if tens > 9 || units > 9 {
		return 0, 0
	}
	return 10*tens + units, len("&#00;")
}

func htmlNumber(b []byte, first int, base uint) (byte, int) {
	v := uint(0)
	for i := first; i < len(b); i++ {
		digit := uint(unhex[b[i]])
		if digit < base {
			if v = v*base + digit; v <= 0xff {
				continue
			}
		} else if b[i] == ';' && i > first {
			return byte(v), i + 1
		}
		break
	}
	return 0, 0
}

func htmlNamed(b []byte) (byte, int) {
	for i, c := range b {
		if c == ';' {
			if c, ok := entities[string(b[1:i])]; ok {
				return c, i + 1
			}
			return 0, 0
		}
	}
	return 0, 0
}

func htmlBegun(b []byte) bool {
	for i, c := range b {
		if unhex[c] > 15 && (c|0x20 < 'a' || c|0x20 > 'z') && (i > 0 || c != '#') {
			return false
		}
	}
	return true
}

func htmlSecond(c byte) string {
	second := "#"
	for name, meant := range entities {
		if meant == c {
			second += name[:1]
		}
	}
	return second
}

var entities = map[string]byte{
	"Tab": '\t', "NewLine": '\n', "nbsp": ' ', "excl": '!', "quot": '"', "QUOT": '"', "num": '#', "dollar": '$', "percnt": '%',
	"amp": '&', "AMP": '&', "apos": '\'', "lpar": '(', "rpar": ')', "ast": '*', "midast": '*', "plus": '+', "comma": ',',
	"period": '.', "sol": '/', "colon": ':', "semi": ';', "lt": '<', "LT": '<', "equals": '=', "gt": '>', "GT": '>', "quest": '?',
	"commat": '@', "lsqb": '[', "lbrack": '[', "bsol": '\\', "rsqb": ']', "rbrack": ']', "Hat": '^', "lowbar": '_', "UnderBar": '_',
	"grave": '`', "lcub": '{', "lbrace": '{', "verbar": '|', "vert": '|', "VerticalLine": '|', "rcub": '}', "rbrace": '}',
}

// unhex gives the values of hexadecimal digits, and 255 for anything else.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i := range byte(10) {
		t['0'+i] = i
	}
	for i := range byte(6) {
		t['a'+i], t['A'+i] = 10+i, 10+i
	}
	return t
}()
