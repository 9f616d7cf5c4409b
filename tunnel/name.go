package tunnel

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/idna"
)

const (
	maxLabel = 63  // RFC 1035, section 2.3.4
	maxHost  = 253 // as above, in text form without the last dot
)

// ValidateName checks the name of a tunnel or an agent: one DNS label, since
// an HTTP tunnel's name becomes one.
func ValidateName(name string) error {
	const want = "want 1–63 characters of a–z, 0–9 and -, not beginning or ending with -"
	bad := name == "" || len(name) > maxLabel || name[0] == '-' || name[len(name)-1] == '-'
	for i := 0; i < len(name) && !bad; i++ {
		bad = !labelByte(name[i])
	}
	if bad {
		return fmt.Errorf("name %q: %s", abridge(name), want)
	}
	return nil
}

func labelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
}

// CanonicalHost is the one spelling of a host name that tables and records
// use: lower case, no dot at its end, IDNA's A-labels (RFC 5891). It refuses
// ports, addresses with brackets and whatever is no host name.
func CanonicalHost(host string) (string, error) {
	h := strings.TrimSuffix(host, ".")
	if canonical(h) {
		return h, nil
	}
	ascii, err := idna.Lookup.ToASCII(h)
	if err != nil || !canonical(ascii) {
		return "", fmt.Errorf("%q is no host name", abridge(host))
	}
	return ascii, nil
}

// canonical reports whether h is in canonical form already, which is what
// nearly every request brings.
func canonical(h string) bool {
	if h == "" || len(h) > maxHost {
		return false
	}
	start := 0
	for i := 0; i <= len(h); i++ {
		if i < len(h) && h[i] != '.' {
			if !labelByte(h[i]) && h[i] != '_' {
				return false
			}
			continue
		}
		if i == start || i-start > maxLabel || h[start] == '-' || h[i-1] == '-' {
			return false
		}
		start = i + 1
	}
	return !strings.Contains(h, "xn--") || validPunycode(h)
}

func validPunycode(h string) bool {
	ascii, err := idna.Lookup.ToASCII(h)
	return err == nil && ascii == h
}

// RandomName makes a readable name such as "brave-otter-4821", with some 25
// bits of choice.
func RandomName(random io.Reader) (string, error) {
	var b [8]byte
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("draw a name: %w", err)
	}
	n := binary.BigEndian.Uint64(b[:])
	adjective := adjectives[n%uint64(len(adjectives))]
	n /= uint64(len(adjectives))
	animal := animals[n%uint64(len(animals))]
	n /= uint64(len(animals))
	return fmt.Sprintf("%s-%s-%04d", adjective, animal, n%10000), nil
}

var adjectives = strings.Fields(`
	able agile amber ample apt azure bold brave breezy bright brisk calm candid cheery civil clear
	clever cosmic cozy crisp curious daring deft eager early easy fair fancy fast fine fleet fond
	frank fresh gentle glad golden good grand green happy hardy honest humble jolly keen kind lively
	loyal lucky lunar mellow merry mild modest neat nimble noble polite proud quick quiet ready rosy
	royal sharp silver sleek smart snowy solar solid spry steady still sunny swift tidy warm wise`)

var animals = strings.Fields(`
	ant auk badger bat bear beaver bee bison boar bream bunny camel carp cat cod condor coot crab
	crane crow deer dingo dodo dove duck eagle egret eland elk emu ermine falcon ferret finch fox
	frog gecko gibbon goat goose gull hare hawk heron hippo ibex ibis jackal jay kite koala lark
	lemur lion llama lynx macaw magpie marten mole moose moth newt ocelot okapi orca osprey otter
	owl ox panda parrot pika plover pony puffin puma quail rabbit raven robin salmon seal shrew
	skink sloth snipe stoat stork swan swift tapir tern tiger toad trout tuna turtle viper vole
	walrus weasel whale wolf wombat wren yak zebra`)

func abridge(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
