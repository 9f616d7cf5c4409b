package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fixed gives a key that is the same in each run.
func fixed(t testing.TB, b byte) Private {
	t.Helper()
	k, err := ParsePrivate(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, Size)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testInvite(t testing.TB) Invite {
	return Invite{
		Key:     fixed(t, 1),
		Node:    4711,
		Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Overlay: netip.MustParsePrefix("fd12:3456:789a::/48"),
		Edges: []Edge{
			{Key: fixed(t, 2).Public(), Node: 1, Endpoints: []Endpoint{
				{EndpointUDP, "edge.example.com:51820"},
				{EndpointHTTPS, "edge.example.com:443"},
			}},
			{Key: fixed(t, 3).Public(), Node: 2, Endpoints: []Endpoint{{EndpointUDP, "[2001:db8::1]:51820"}}},
		},
	}
}

func mustEncode(t testing.TB, i Invite) string {
	t.Helper()
	token, err := i.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// refused parses what must be refused and gives the reason.
func refused(t *testing.T, what, token string) string {
	t.Helper()
	got, err := ParseInvite(token)
	var ie *InviteError
	if !errors.As(err, &ie) {
		t.Fatalf("%s: got %v, want an *InviteError", what, err)
	}
	if !reflect.DeepEqual(got, Invite{}) {
		t.Errorf("%s: refused, and yet an invite came back", what)
	}
	if len(ie.Reason) < 20 || len(ie.Reason) > 300 {
		t.Errorf("%s: the reason is no sentence: %q", what, ie.Reason)
	}
	return ie.Reason
}

func TestInviteRoundTrip(t *testing.T) {
	want := testInvite(t)
	token := mustEncode(t, want)
	if strings.Trim(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || !strings.HasPrefix(token, "wgx1_") {
		t.Errorf("the token is not one word: %s", token)
	}
	for _, around := range []string{"%s", "%s\n", " \t%s\r\n"} {
		got, err := ParseInvite(fmt.Sprintf(around, token))
		if err != nil {
			t.Fatal(err)
		}
		if !got.Key.Equal(want.Key) || !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

// TestInviteFormat: tokens of this version must be readable for ever, so the
// bytes are written down.
func TestInviteFormat(t *testing.T) {
	const token = "wgx1_AOgBIAABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQFBAgQAABJnAwgAAAAAcN1VJQQG_RI0VniaBWYBIM6NOtHMtjPse3DBeBSlx27NApaFBQ00R0W6BYcOWH1ZAgQAAAABAx0BA3VkcAIWZWRnZS5leGFtcGxlLmNvbTo1MTgyMAMdAQVodHRwcwIUZWRnZS5leGFtcGxlLmNvbTo0NDMFRAEgXf7dO2vUf2-ijuFdlp1bsOpTd01Ii9r53xxuASSz7yICBAAAAAIDGgEDdWRwAhNbMjAwMTpkYjg6OjFdOjUxODIwj3wUww"
	i := testInvite(t)
	got := mustEncode(t, i)
	if got != token {
		t.Errorf("the format changed:\n%s\nwant\n%s", got, token)
	}
	back, err := ParseInvite(token)
	if err != nil || !reflect.DeepEqual(back, i) {
		t.Errorf("an old token reads as %+v, %v", back, err)
	}
}

func TestInviteExpires(t *testing.T) {
	i := testInvite(t)
	i.Expires = i.Expires.Add(900 * time.Millisecond).In(time.FixedZone("", 3600))
	got, err := ParseInvite(mustEncode(t, i))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	if got.Expires != at {
		t.Errorf("expires %v, want %v", got.Expires, at)
	}
	for d, want := range map[time.Duration]bool{-time.Second: false, -1: false, 0: true, time.Second: true} {
		if got.Expired(at.Add(d)) != want {
			t.Errorf("%v after its expiry: Expired is not %v", d, want)
		}
	}
}

func TestInviteEveryTruncation(t *testing.T) {
	token := mustEncode(t, testInvite(t))
	for n := range len(token) {
		reason := refused(t, fmt.Sprintf("the first %d characters", n), token[:n])
		if n > 0 && !strings.HasPrefix(reason, "is cut off") {
			t.Errorf("the first %d characters: the reason is %q", n, reason)
		}
		if n > 0 {
			refused(t, fmt.Sprintf("without the first %d characters", n), token[n:])
			refused(t, fmt.Sprintf("without character %d", n), token[:n-1]+token[n:])
		}
	}
}

func TestInviteEveryDamagedCharacter(t *testing.T) {
	token := mustEncode(t, testInvite(t))
	for i := range len(token) {
		for c := range 256 {
			if byte(c) == token[i] {
				continue
			}
			damaged := token[:i] + string([]byte{byte(c)}) + token[i+1:]
			if strings.TrimSpace(damaged) == token {
				t.Fatal("not damaged")
			}
			refused(t, fmt.Sprintf("character %d as %q", i, []byte{byte(c)}), damaged)
		}
		if i > 0 && token[i] != token[i-1] {
			refused(t, fmt.Sprintf("characters %d and %d swapped", i-1, i), token[:i-1]+token[i:i+1]+token[i-1:i]+token[i+1:])
		}
		refused(t, fmt.Sprintf("character %d twice", i), token[:i]+token[i:i+1]+token[i:])
	}
}

func TestInviteReasons(t *testing.T) {
	token := mustEncode(t, testInvite(t))
	short := seal(nil)
	for what, c := range map[string]struct{ token, want string }{
		"nothing":           {"", "is empty"},
		"white space":       {" \n\t", "is empty"},
		"a word":            {"hello", "does not start with wgx1_"},
		"another's token":   {"2abcDEF_3ghiJKLmno", "does not start with wgx1_"},
		"a WireGuard key":   {text(mustNew(t)), "does not start with wgx1_"},
		"upper case":        {strings.ToUpper(token), "does not start with wgx1_"},
		"quotes":            {`"` + token + `"`, "does not start with wgx1_"},
		"start of prefix":   {"wgx", "is cut off"},
		"prefix alone":      {"wgx1_", "is cut off"},
		"newer":             {"wgx2_" + token[5:], "was made by a newer version of wgexpose (format 2): update"},
		"much newer":        {"wgx137_?", "was made by a newer version of wgexpose (format 137): update"},
		"newer, cut off":    {"wgx2_", "was made by a newer version"},
		"version 0":         {"wgx0_" + token[5:], "does not start with wgx1_"},
		"line break inside": {token[:80] + "\n" + token[80:], "is damaged: character 81 "},
		"end missing":       {token[:len(token)-1], "is cut off"},
		"something after":   {token + "A", "something was added"},
		"two tokens":        {token + token, "something was added"},
		"other checksum":    {token[:len(token)-5] + "AAAAA"[:5], "is damaged"},
		"too long":          {"wgx1_" + strings.Repeat("A", maxToken), "has 4101 characters, of at most 4096"},
		"no fields":         {short, "makes no sense: it has no key; ask for a new one"},
	} {
		if reason := refused(t, what, c.token); !strings.Contains(reason, c.want) {
			t.Errorf("%s: the reason %q does not say %q", what, reason, c.want)
		}
	}
	_, err := ParseInvite("wgx2_x")
	if err == nil || !strings.HasPrefix(err.Error(), "the invite was made by a newer version") {
		t.Errorf("the error reads %v", err)
	}
}

// TestInviteErrorsAreSilent: what is refused may still be a secret.
func TestInviteErrorsAreSilent(t *testing.T) {
	token := mustEncode(t, testInvite(t))
	for _, s := range []string{token[:len(token)-1], token + "A", token[:70] + "?" + token[71:], "x" + token} {
		_, err := ParseInvite(s)
		if err == nil || strings.Contains(err.Error(), token[20:60]) {
			t.Errorf("the error repeats the token: %v", err)
		}
	}
	if s := fmt.Sprintf("%+v %#v", testInvite(t), testInvite(t)); leaks(testInvite(t).Key, s) != "" {
		t.Error("a printed invite shows its key")
	}
}

func TestEncodeRefuses(t *testing.T) {
	endpoint := func(kind EndpointKind, addr string) func(*Invite) {
		return func(i *Invite) { i.Edges[1].Endpoints[0] = Endpoint{kind, addr} }
	}
	for what, c := range map[string]struct {
		change func(*Invite)
		want   string // "" is allowed
	}{
		"nothing wrong":     {func(*Invite) {}, ""},
		"no key":            {func(i *Invite) { i.Key = Private{} }, "no key"},
		"no node":           {func(i *Invite) { i.Node = 0 }, "no node id"},
		"no expiry":         {func(i *Invite) { i.Expires = time.Time{} }, "expiry"},
		"year 10000":        {func(i *Invite) { i.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "expiry"},
		"no overlay":        {func(i *Invite) { i.Overlay = netip.Prefix{} }, "overlay"},
		"a /64":             {func(i *Invite) { i.Overlay = netip.MustParsePrefix("fd12::/64") }, "overlay"},
		"host bits":         {func(i *Invite) { i.Overlay = netip.MustParsePrefix("fd12::1/48") }, "overlay"},
		"public prefix":     {func(i *Invite) { i.Overlay = netip.MustParsePrefix("2001:db8::/48") }, "overlay"},
		"IPv4 prefix":       {func(i *Invite) { i.Overlay = netip.MustParsePrefix("10.0.0.0/8") }, "overlay"},
		"no edges":          {func(i *Invite) { i.Edges = nil }, "names no edge"},
		"many edges":        {func(i *Invite) { i.Edges = make([]Edge, 17) }, "17 edges"},
		"edge without key":  {func(i *Invite) { i.Edges[1].Key = Public{} }, "edge 2: it has no key"},
		"edge without node": {func(i *Invite) { i.Edges[1].Node = 0 }, "no node id"},
		"no endpoints":      {func(i *Invite) { i.Edges[1].Endpoints = nil }, "no endpoint"},
		"many endpoints":    {func(i *Invite) { i.Edges[1].Endpoints = make([]Endpoint, 17) }, "17 endpoints"},
		"IPv4":              {endpoint(EndpointUDP, "192.0.2.1:51820"), ""},
		"one label":         {endpoint(EndpointUDP, "localhost:1"), ""},
		"other kind":        {endpoint("masque-h3", "https://x/y"), ""},
		"no kind":           {endpoint("", "192.0.2.1:1"), "no kind of endpoint"},
		"long kind":         {endpoint(EndpointKind(strings.Repeat("x", 17)), "192.0.2.1:1"), "no kind of endpoint"},
		"strange kind":      {endpoint("UDP 1", "192.0.2.1:1"), "no kind of endpoint"},
		"no address":        {endpoint(EndpointUDP, ""), "0 bytes"},
		"long address":      {endpoint("x", strings.Repeat("x", 301)), "301 bytes"},
		"control character": {endpoint("x", "a\x1bb"), "printable"},
		"space":             {endpoint(EndpointUDP, "a b:1"), "printable"},
		"no port":           {endpoint(EndpointUDP, "192.0.2.1"), "not host:port"},
		"port 0":            {endpoint(EndpointUDP, "192.0.2.1:0"), "1 to 65535"},
		"port 65536":        {endpoint(EndpointUDP, "192.0.2.1:65536"), "1 to 65535"},
		"named port":        {endpoint(EndpointHTTPS, "192.0.2.1:https"), "1 to 65535"},
		"no host":           {endpoint(EndpointUDP, ":51820"), "neither a name nor"},
		"zone":              {endpoint(EndpointUDP, "[fe80::1%eth0]:1"), "zone"},
		"slash in host":     {endpoint(EndpointHTTPS, "a/b:1"), "neither a name nor"},
		"long host":         {endpoint(EndpointUDP, strings.Repeat("a", 254)+":1"), "neither a name nor"},
	} {
		i := testInvite(t)
		c.change(&i)
		token, err := i.Encode()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.want == "":
			if got, err := ParseInvite(token); err != nil || !reflect.DeepEqual(got, i) {
				t.Errorf("%s: came back as %+v, %v", what, got, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: the error %v does not say %q", what, err, c.want)
		}
	}
}

// TestInviteCap: what can be encoded can be parsed, up to the longest token.
func TestInviteCap(t *testing.T) {
	i := testInvite(t)
	i.Edges = i.Edges[:1]
	longest := 0
	for n := 200; n < 300; n++ {
		i.Edges[0].Endpoints = nil
		for range 12 {
			i.Edges[0].Endpoints = append(i.Edges[0].Endpoints, Endpoint{"x", strings.Repeat("x", n)})
		}
		token, err := i.Encode()
		if err != nil {
			if !strings.Contains(err.Error(), "of at most 4096") {
				t.Fatal(err)
			}
			break
		}
		if longest = len(token); longest > maxToken {
			t.Fatalf("a token of %d characters", longest)
		}
		if got, err := ParseInvite(token); err != nil || !reflect.DeepEqual(got, i) {
			t.Fatalf("a token of %d characters: %v", longest, err)
		}
	}
	if longest < maxToken-20 {
		t.Errorf("the longest token has %d characters; the limit of %d was not tried", longest, maxToken)
	}
}

func FuzzParseInvite(f *testing.F) {
	token := mustEncode(f, testInvite(f))
	f.Add(token)
	f.Add(" " + token[:50] + "\n")
	f.Add("wgx1_")
	f.Add("wgx2_AAAA")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) { checkParse(t, s) })
}

func checkParse(t *testing.T, s string) {
	i, err := ParseInvite(s)
	if err != nil {
		var ie *InviteError
		if !errors.As(err, &ie) || ie.Reason == "" {
			t.Fatalf("%q: %v is no *InviteError", s, err)
		}
		return
	}
	token, err := i.Encode()
	if err != nil {
		t.Fatalf("%q parses, and does not encode: %v", s, err)
	}
	if again, err := ParseInvite(token); err != nil || !reflect.DeepEqual(i, again) {
		t.Fatalf("%q came back as %+v, %v", s, again, err)
	}
}
