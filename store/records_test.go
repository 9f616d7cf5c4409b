package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Records with all fields set.
var (
	publicKey = keys.PublicFrom([keys.Size]byte{1, 2, 3, 0xff})
	moment    = time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
	anInvite  = store.Invite{ID: "abcdefghij", Node: 300, Key: publicKey, Name: "laptop", Uses: 2,
		Used: []store.InviteUse{{Key: publicKey, Node: 301, At: moment}}, Created: moment, Expires: moment.Add(time.Hour), Revoked: true}
	aNode = store.Node{ID: 300, Kind: store.AgentNode, Name: "laptop", Key: publicKey, Version: "v1", Platform: "linux/amd64",
		Created: moment, Joined: true, Endpoint: netip.MustParseAddrPort("[2001:db8::1]:51820"), Invite: "abcdefghij"}
	aPublic = store.Public{Node: 300, Name: "app", Kind: tunnel.HTTP, Host: "app.example.com", Port: 20022, Generated: true, Active: true,
		Spec: tunnel.Spec{ID: 7, Name: "app", Kind: tunnel.HTTP, Upstream: "http://127.0.0.1:8089"}, Created: moment, Seen: moment}
)

func settings(t testing.TB) store.Settings {
	t.Helper()
	overlay, err := tunnel.OverlayFrom(netip.MustParsePrefix("fd12:3456:789a::/48"))
	if err != nil {
		t.Fatal(err)
	}
	return store.Settings{Overlay: overlay, Domain: "example.com", Created: moment}
}

func TestRecordsComeBack(t *testing.T) {
	s := openBolt(t, filepath.Join(t.TempDir(), "edge.db"))
	comesBack(t, s, store.SettingsKey, settings(t))
	comesBack(t, s, store.NodeKey(300), aNode)
	comesBack(t, s, store.NodeKey(1), store.Node{ID: 1, Kind: store.EdgeNode}) // hardly any field
	comesBack(t, s, store.NodeKeyKey(publicKey), tunnel.NodeID(300))
	comesBack(t, s, store.NameKey("laptop"), tunnel.NodeID(0))
	comesBack(t, s, store.InviteKey("abcdefghij"), anInvite)
	comesBack(t, s, store.HTTPSKey("app.example.com"), aPublic)
	comesBack(t, s, store.TCPKey(22), store.Public{Kind: tunnel.TCP, Port: 22})

	nodes, rev, err := store.ReadAll[store.Node](t.Context(), s, store.NodePrefix)
	if err != nil || rev != 8 || len(nodes) != 2 || !reflect.DeepEqual(nodes[store.NodeKey(300)], store.Item[store.Node]{Value: aNode, Revision: 2}) {
		t.Errorf("%v at revision %d, %v", nodes, rev, err)
	}
	publics, _, err := store.ReadAll[store.Public](t.Context(), s, store.PublicPrefix)
	if err != nil || len(publics) != 2 {
		t.Errorf("%v, %v", publics, err)
	}
}

func comesBack[T any](t *testing.T, s store.Store, key string, v T) {
	t.Helper()
	op, err := store.Put(key, v, 0)
	if err != nil {
		t.Fatal(err)
	}
	want, err := s.Commit(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	got, rev, err := store.Read[T](t.Context(), s, key)
	if err != nil || rev != want || !reflect.DeepEqual(got, v) {
		t.Errorf("%s: got %+v at revision %d, %v, want %+v at %d", key, got, rev, err, v, want)
	}
}

func TestReadErrors(t *testing.T) {
	s := openBolt(t, filepath.Join(t.TempDir(), "edge.db"))
	if _, _, err := store.Read[store.Node](t.Context(), s, store.NodeKey(1)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a missing record: %v", err)
	}
	if _, err := s.Commit(t.Context(), store.Op{Key: store.NodeKey(1), Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	var record *store.RecordError
	if _, _, err := store.Read[store.Node](t.Context(), s, store.NodeKey(1)); !errors.As(err, &record) || record.Key != store.NodeKey(1) {
		t.Errorf("a damaged record: %v", err)
	}
	if _, _, err := store.ReadAll[store.Node](t.Context(), s, ""); !errors.As(err, &record) || record.Key != store.NodeKey(1) {
		t.Errorf("a damaged record among all: %v", err)
	}
	large := store.Node{Name: strings.Repeat("x", store.MaxValue)}
	if _, err := store.Put("node/large", large, 0); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a large record: %v", err)
	}
	if _, err := store.Put("node/far", store.Node{Created: moment.AddDate(9000, 0, 0)}, 0); !errors.As(err, &record) {
		t.Errorf("a record that has no JSON: %v", err)
	}
}

func TestDecode(t *testing.T) {
	for text, good := range map[string]bool{
		`{"id":300,"name":"laptop"}`:                     true,
		` {"id":300} ` + "\n":                            true,
		`{"id":300,"colour":"red","more":{"a":[1,2,3]}}`: true, // of a program that knows more
		`{}`:                                   true,
		``:                                     false,
		` `:                                    false,
		`null`:                                 false,
		" null\n":                              false,
		`{`:                                    false,
		`{"id":300}}`:                          false,
		`{"id":300} 1`:                         false,
		`{"id":300,}`:                          false,
		`[]`:                                   false,
		`"node"`:                               false,
		`{"id":-1}`:                            false,
		`{"id":1.5}`:                           false,
		`{"id":"1"}`:                           false,
		`{"id":1e99}`:                          false,
		`{"key":"AAAA"}`:                       false,
		`{"key":"` + publicKey.String() + `"}`: true,
		`{"endpoint":"nowhere"}`:               false,
		`{"created":"yesterday"}`:              false,
		`{"name":"` + strings.Repeat("x", store.MaxValue) + `"}`:   false,
		`{"name":"` + strings.Repeat("x", store.MaxValue/2) + `"}`: true,
	} {
		_, err := store.Decode[store.Node](store.Entry{Key: "node/x", Value: []byte(text)})
		var record *store.RecordError
		if good != (err == nil) || err != nil && (!errors.As(err, &record) || !strings.Contains(err.Error(), "node/x")) {
			t.Errorf("%.60s: %v", text, err)
		}
	}
	for _, text := range []string{`null`, `"1"`, `-1`, `4294967296`, `1 1`, ``} {
		if id, err := store.Decode[tunnel.NodeID](store.Entry{Value: []byte(text)}); err == nil {
			t.Errorf("node id %s: got %d", text, id)
		}
	}
}

func TestKeys(t *testing.T) {
	for got, want := range map[string]string{
		store.NodeKey(1):                   "node/0000000001",
		store.NodeKey(4294967295):          "node/4294967295",
		store.TCPKey(22):                   "public/tcp/00022",
		store.TCPKey(65535):                "public/tcp/65535",
		store.HTTPSKey("app.example.com"):  "public/https/app.example.com",
		store.NameKey("laptop"):            "name/laptop",
		store.InviteKey("abc"):             "invite/abc",
		store.NodeKeyKey(keys.Public{}):    "nodekey/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		store.InviteID(keys.Public{})[:10]: "mzuhvlpymk", // head -c 32 /dev/zero | sha256sum | xxd -r -p | base32
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if len(store.InviteID(publicKey)) != 10 {
		t.Error(store.InviteID(publicKey))
	}
	// As numbers sort, so do their keys.
	ids := make([]tunnel.NodeID, 100)
	for i := range ids {
		ids[i] = tunnel.NodeID(rand.Uint32() >> rand.IntN(32))
	}
	slices.Sort(ids)
	if !slices.IsSortedFunc(ids, func(a, b tunnel.NodeID) int { return strings.Compare(store.NodeKey(a), store.NodeKey(b)) }) {
		t.Error("keys of nodes do not sort as their numbers")
	}
	// A key is a part of a path: nothing in it may look like more of one.
	for i := range 256 {
		key := store.NodeKeyKey(keys.PublicFrom([keys.Size]byte{byte(i), 0xff, 0xef}))
		if strings.Count(key, "/") != 1 {
			t.Errorf("key %s", key)
		}
	}
}

// fuzzRecord decodes anything, and what it takes must come back from its own
// encoding, which is what happens to a record that is read and written again.
func fuzzRecord[T any](f *testing.F, seeds ...T) {
	for _, seed := range seeds {
		op, err := store.Put("seed", seed, 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(op.Value)
	}
	for _, seed := range []string{`{}`, `null`, `[]`, `0`, ``, `{"id":1}{"id":2}`, `{"used":null,"spec":{}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		v, err := store.Decode[T](store.Entry{Key: "k", Value: value})
		if err != nil {
			return
		}
		op, err := store.Put("k", v, 0)
		if err != nil {
			if errors.Is(err, store.ErrInvalid) {
				return // escaped, it is too large
			}
			t.Fatalf("%q was decoded, and cannot be encoded: %v", value, err)
		}
		again, err := store.Decode[T](store.Entry{Key: "k", Value: op.Value})
		if err != nil {
			t.Fatalf("%q was encoded as %q: %v", value, op.Value, err)
		}
		twice, err := json.Marshal(again)
		if err != nil || !bytes.Equal(twice, op.Value) {
			t.Fatalf("%q became %q, then %q, %v", value, op.Value, twice, err)
		}
		if fmt.Sprint(v) != fmt.Sprint(again) {
			t.Fatalf("%+v became %+v", v, again)
		}
	})
}

func FuzzDecodeRecordSettings(f *testing.F) { fuzzRecord(f, settings(f)) }
func FuzzDecodeRecordNode(f *testing.F)     { fuzzRecord(f, aNode, store.Node{}) }
func FuzzDecodeRecordInvite(f *testing.F)   { fuzzRecord(f, anInvite, store.Invite{}) }
func FuzzDecodeRecordPublic(f *testing.F)   { fuzzRecord(f, aPublic, store.Public{}) }
func FuzzDecodeRecordNodeID(f *testing.F)   { fuzzRecord[tunnel.NodeID](f, 0, 1, 4294967295) }
