package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
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

// fieldsOf gives the fields of the test invite, to build others from.
func fieldsOf(t testing.TB, i Invite) []byte {
	t.Helper()
	b, err := open(mustEncode(t, i))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b)
}

func TestInviteUnknownFieldsAreSkipped(t *testing.T) {
	want := testInvite(t)
	want.Edges = want.Edges[:1]
	key := want.Edges[0].Key.Bytes()
	long := bytes.Repeat([]byte{7}, 300)
	endpoint := appendField(nil, 99, nil)
	endpoint = appendField(endpoint, tagEndpointKind, []byte("udp"))
	endpoint = appendField(endpoint, tagEndpointAddr, []byte("192.0.2.1:1"))
	endpoint = appendField(endpoint, 100, long)
	newKind := appendField(nil, tagEndpointKind, []byte("quic-2"))
	newKind = appendField(newKind, tagEndpointAddr, []byte("anything/at-all"))
	edge := appendField(nil, 77, long)
	edge = appendField(edge, tagEdgeEndpoint, endpoint)
	edge = appendField(edge, tagEdgeKey, key[:])
	edge = appendField(edge, tagEdgeEndpoint, newKind)
	edge = appendField(edge, tagEdgeNode, []byte{0, 0, 0, 1})
	edge = appendField(edge, 77, long)
	want.Edges[0].Endpoints = []Endpoint{{EndpointUDP, "192.0.2.1:1"}, {"quic-2", "anything/at-all"}}

	all := fieldsOf(t, testInvite(t))
	// The four single fields come first, the edges after them.
	at := bytes.IndexByte(all, tagEdge)
	for ; all[at] != tagEdge || len(all[at:]) < 40 || !bytes.Contains(all[at:at+10], key[:4]); at++ {
	}
	fields := appendField(nil, 255, long)
	fields = append(fields, all[:at]...)
	fields = appendField(fields, 200, nil)
	fields = appendField(fields, tagEdge, edge)
	fields = appendField(fields, 255, nil)
	got, err := ParseInvite(seal(fields))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestInviteBadFields: a token whose checksum is right but that was made wrong.
func TestInviteBadFields(t *testing.T) {
	good := fieldsOf(t, testInvite(t))
	add := func(tag byte, value []byte) []byte { return appendField(bytes.Clone(good), tag, value) }
	edgeKey := testInvite(t).Edges[0].Key.Bytes()
	edge := func(parts ...[]byte) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return add(tagEdge, b)
	}
	key := appendField(nil, tagEdgeKey, edgeKey[:])
	node := appendField(nil, tagEdgeNode, []byte{0, 0, 0, 3})
	endpoint := appendField(nil, tagEdgeEndpoint, append(appendField(nil, tagEndpointKind, []byte("udp")), appendField(nil, tagEndpointAddr, []byte("192.0.2.1:1"))...))
	if _, err := ParseInvite(seal(edge(key, node, endpoint))); err != nil {
		t.Fatalf("the parts that the cases are made of are bad: %v", err)
	}
	for what, c := range map[string]struct {
		fields []byte
		want   string
	}{
		"tag alone":          {append(bytes.Clone(good), 9), "a field ends early"},
		"value missing":      {append(bytes.Clone(good), 9, 1), "a field ends early"},
		"endless length":     {append(append(bytes.Clone(good), 9), bytes.Repeat([]byte{0xff}, 11)...), "a field ends early"},
		"length of 2^63":     {append(append(bytes.Clone(good), 9), binary.AppendUvarint(nil, 1<<63)...), "a field ends early"},
		"length of 2^64-1":   {append(append(bytes.Clone(good), 9), binary.AppendUvarint(nil, 1<<64-1)...), "a field ends early"},
		"two keys":           {add(tagKey, make([]byte, Size)), "field 1 appears twice"},
		"two node ids":       {add(tagNode, []byte{0, 0, 1, 1}), "field 2 appears twice"},
		"two expiries":       {add(tagExpires, make([]byte, 8)), "field 3 appears twice"},
		"two overlays":       {add(tagOverlay, make([]byte, 6)), "field 4 appears twice"},
		"short key":          {appendField(nil, tagKey, make([]byte, 31)), "31 bytes instead of 32"},
		"zero key":           {appendField(nil, tagKey, make([]byte, 32)), "it has no key"},
		"long node id":       {appendField(nil, tagNode, make([]byte, 5)), "5 bytes instead of 4"},
		"short expiry":       {appendField(nil, tagExpires, make([]byte, 4)), "4 bytes instead of 8"},
		"expiry beyond time": {appendField(nil, tagExpires, bytes.Repeat([]byte{0xff}, 8)), "expiry makes no sense"},
		"long overlay":       {appendField(nil, tagOverlay, make([]byte, 16)), "16 bytes instead of 6"},
		"edge without key":   {edge(node, endpoint), "has no key"},
		"edge with zero key": {edge(appendField(nil, tagEdgeKey, make([]byte, 32)), node, endpoint), "has no key"},
		"edge without node":  {edge(key, endpoint), "has no node id"},
		"edge, no endpoint":  {edge(key, node), "has no endpoint"},
		"edge with two keys": {edge(key, key, node, endpoint), "field 1 appears twice"},
		"edge, short key":    {edge(appendField(nil, tagEdgeKey, edgeKey[:31]), node, endpoint), "31 bytes instead of 32"},
		"edge, two node ids": {edge(key, node, node, endpoint), "field 2 appears twice"},
		"edge, long node id": {edge(key, appendField(nil, tagEdgeNode, make([]byte, 8)), endpoint), "8 bytes instead of 4"},
		"edge ends early":    {edge(key, node, endpoint, []byte{1}), "a field ends early"},
		"many endpoints":     {edge(key, node, bytes.Repeat(endpoint, maxEndpoints+1)), "more than 16 endpoints"},
		"empty endpoint":     {edge(key, node, appendField(nil, tagEdgeEndpoint, nil)), "no kind of endpoint"},
		"many edges":         {bytes.Repeat(edge(key, node, endpoint)[len(good):], maxEdges+1), "more than 16 edges"},
		"edges alone":        {edge(key, node, endpoint)[len(good):], "it has no key"},
	} {
		reason := refused(t, what, seal(c.fields))
		if !strings.HasPrefix(reason, "makes no sense: ") || !strings.Contains(reason, c.want) {
			t.Errorf("%s: the reason %q does not say %q", what, reason, c.want)
		}
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

// FuzzInviteFields reaches what lies behind the checksum.
func FuzzInviteFields(f *testing.F) {
	f.Add(fieldsOf(f, testInvite(f)))
	f.Add([]byte{})
	f.Add([]byte{9, 0x80})
	f.Fuzz(func(t *testing.T, fields []byte) {
		if len(fields) < maxToken {
			checkParse(t, seal(fields))
		}
	})
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
