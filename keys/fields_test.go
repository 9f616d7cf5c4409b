package keys

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
)

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
