package inspect

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// h2frame makes a frame of HTTP/2.
func h2frame(kind, flags byte, stream uint32, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}) + payload
}

// h2block compresses a head; one encoder for each direction.
type h2block struct {
	b bytes.Buffer
	*hpack.Encoder
}

func newH2Block() *h2block {
	h := new(h2block)
	h.Encoder = hpack.NewEncoder(&h.b)
	return h
}

func (h *h2block) of(t testing.TB, pairs ...string) string {
	t.Helper()
	h.b.Reset()
	for n := 0; n < len(pairs); n += 2 {
		if err := h.WriteField(hpack.HeaderField{Name: pairs[n], Value: pairs[n+1]}); err != nil {
			t.Fatal(err)
		}
	}
	return h.b.String()
}

const h2Start = h2Preface + "\r\n\r\n" + h2PrefaceRest

// h2Conversation has two streams at once, split heads, padding, trailers, a
// reset, and frames that mean nothing here.
func h2Conversation(t testing.TB) []turn {
	up, down := newH2Block(), newH2Block()
	head := up.of(t, ":method", "POST", ":scheme", "http", ":path", "/pkg.Svc/Call", ":authority", "app.example.com", "content-type", "application/grpc", "authorization", "Bearer s")
	second := up.of(t, ":method", "GET", ":scheme", "http", ":path", "/two", ":authority", "app.example.com")
	third := up.of(t, ":method", "GET", ":scheme", "http", ":path", "/three", ":authority", "app.example.com")
	answer := down.of(t, ":status", "200", "content-type", "application/grpc")
	return []turn{
		{toUpstream, h2Start + h2frame(4, 0, 0, "") +
			h2frame(h2Headers, h2Priority, 1, "\x00\x00\x00\x00\x10"+head[:7]) + h2frame(h2Continuation, 0, 1, head[7:9]) + h2frame(h2Continuation, h2EndHeaders, 1, head[9:]) +
			h2frame(h2Data, 0, 1, "\x00\x00\x00\x00\x02h") + h2frame(h2Headers, h2EndHeaders|h2EndStream, 3, second) +
			h2frame(h2Data, h2Padded|h2EndStream, 1, "\x03i\x00\x00\x00\x00\x00pad")},
		{toVisitor, h2frame(4, 0, 0, "\x00\x03\x00\x00\x00\x64") + h2frame(h2Headers, h2EndHeaders|h2Padded, 1, "\x02"+answer+"..") +
			h2frame(h2Headers, h2EndHeaders, 3, down.of(t, ":status", "103", "link", "</a>")) +
			h2frame(h2Data, 0, 1, "\x00\x00\x00\x00\x01x") + h2frame(h2Headers, h2EndHeaders, 3, down.of(t, ":status", "404", "content-type", "text/plain")) +
			h2frame(h2Data, h2EndStream, 3, "none") + h2frame(h2Headers, h2EndHeaders|h2EndStream, 1, down.of(t, "grpc-status", "0")) + h2frame(6, 0, 0, "12345678")},
		{toUpstream, h2frame(h2Headers, h2EndHeaders|h2EndStream, 5, third) + h2frame(h2Reset, 0, 5, "\x00\x00\x00\x08")},
	}
}

func TestHTTP2(t *testing.T) {
	want := []string{
		`grpc done POST /pkg.Svc/Call | request 12 "\x00\x00\x00\x00\x02hi\x00\x00\x00\x00\x00" done grpc=2 | 200 OK | answer 6 "\x00\x00\x00\x00\x01x" done grpc=1 grpc-status=0`,
		`http done GET /two | request 0 "" done | [103] | 404 Not Found | answer 4 "none" done`,
		`http failed GET /three | request 0 "" done | 0  | answer 0 "" cut | error: the stream was reset (HTTP/2 error 8)`,
	}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		var split func(n int) []int
		if seed > 0 {
			split = func(n int) []int {
				cuts := make([]int, r.IntN(30))
				for i := range cuts {
					cuts[i] = r.IntN(n + 1)
				}
				slices.Sort(cuts)
				return cuts
			}
		}
		i := open(t, Config{})
		list := talk(i, h2Conversation(t), visitorEnds, split)
		if got := describeAll(list); !slices.Equal(got, want) {
			t.Fatalf("seed %d: got\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if d := i.detail(list[0]); d.Host != "app.example.com" || d.Request.Headers[2].Value != "Bearer [masked]" {
			t.Errorf("%+v", d.Request)
		}
	}
}

// TestBadHTTP2: what cannot be understood ends what is under way, and the
// connection is not looked at any more.
func TestBadHTTP2(t *testing.T) {
	up := newH2Block()
	head := h2frame(h2Headers, h2EndHeaders, 1, up.of(t, ":method", "GET", ":path", "/"))
	bomb := h2frame(h2Headers, h2EndHeaders|h2EndStream, 3, up.of(t, ":method", "GET", ":path", "/bomb", "x", strings.Repeat("y", 3000))+strings.Repeat(up.of(t, "x", strings.Repeat("y", 3000)), 2000))
	for name, c := range map[string]struct{ after, want string }{
		"continuation of nothing": {h2frame(h2Continuation, 0, 1, ""), "cannot be understood"},
		"headers cut in":          {h2frame(h2Headers, 0, 3, "") + h2frame(h2Data, 0, 1, ""), "cannot be understood"},
		"bad compression":         {h2frame(h2Headers, h2EndHeaders, 3, "\xff\xff\xff\xff\xff\xff"), "cannot be understood"},
		"more padding than frame": {h2frame(h2Data, h2Padded, 1, "\x09abc"), "cannot be understood"},
		"a long head":             {h2frame(h2Headers, 0, 3, strings.Repeat("x", 70_000)), "longer than what is kept"},
		"the end":                 {"", "the connection was closed before"},
	} {
		list := talk(open(t, Config{}), []turn{{toUpstream, h2Start + head + c.after}, req(get), ans(ok)}, visitorEnds, nil)
		if got := describeAll(list); len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	i := open(t, Config{})
	list := talk(i, []turn{{toUpstream, h2Start + bomb}}, visitorEnds, nil)
	if len(list) != 1 || list[0].memory() > 200_000 || !list[0].request.cut || list[0].target != "/bomb" {
		t.Errorf("%v", describeAll(list))
	}
}

// TestRealHTTP2: Go's own HTTP/2 at both ends, many streams, long bodies, and a
// replay.
func TestRealHTTP2(t *testing.T) {
	i := open(t, Config{BodyLimit: 4 << 10, QueueBytes: 4 << 20})
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Proto", r.Proto+" "+r.Header.Get("Authorization"))
		_, _ = w.Write(b)
		w.Header().Set("X-Sum", fmt.Sprint(len(b)))
	}))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	defer app.Close()
	redial := redialOf(app)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := redial(ctx)
		if err != nil {
			return nil, err
		}
		return i.Tap(c, Meta{Tunnel: "app"}, redial), nil
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	var wg sync.WaitGroup
	for n := range 30 {
		wg.Go(func() {
			_, body := fetch(t, client, "POST", fmt.Sprintf("%s/%d", app.URL, n), strings.Repeat("b", n*1000), "Authorization", "Bearer topsecret")
			if len(body) != n*1000 {
				t.Errorf("%d bytes of %d", len(body), n*1000)
			}
		})
	}
	wg.Wait()
	await(t, i, "all exchanges", func() bool { return len(i.List(Filter{Status: "done"})) == 30 })
	id := ""
	for _, s := range i.List(Filter{}) {
		var n int
		if _, err := fmt.Sscanf(s.Path, "/%d", &n); err != nil || s.RequestBytes != int64(n*1000) || s.ResponseBytes != int64(n*1000) || s.Status != 200 || s.Cut != (n*1000 > 4<<10) {
			t.Errorf("%+v", s)
		}
		if n == 3 {
			id = s.ID
		}
	}
	if d := i.detail(i.find(id)); len(d.Response.Trailers) != 1 || d.Response.Trailers[0].Value != "3000" || d.Request.Proto != "HTTP/2.0" {
		t.Errorf("%+v", d.Response)
	}
	path := "/changed?a=b%20c"
	again, err := i.Replay(t.Context(), id, Changes{Path: &path})
	if err != nil {
		t.Fatal(err)
	}
	await(t, i, "the replay", func() bool { x := i.find(again); return x != nil && i.summary(x).State == StateDone })
	d := i.detail(i.find(again))
	seen := fields(d.Response.Headers).find("X-Proto")
	if d.Path != path || d.ReplayOf != id || d.ResponseBytes != 3000 || seen != "HTTP/2.0 Bearer topsecret" {
		t.Errorf("%+v, seen %q", d.Summary, seen)
	}
}

func FuzzHTTP2(f *testing.F) {
	for _, u := range h2Conversation(f) {
		f.Add([]byte(strings.TrimPrefix(u.text, h2Start)), uint8(u.dir), uint64(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, dir uint8, seed uint64) {
		request := h2frame(h2Headers, h2EndHeaders, 1, newH2Block().of(t, ":method", "GET", ":path", "/"))
		turns := []turn{{toUpstream, h2Start + request}, {direction(dir % 2), string(b)}}
		i := New(fuzzConfig)
		defer i.Close()
		for _, x := range talk(i, turns, visitorEnds, nil) {
			i.detail(x)
			if x.memory() > 1<<20 {
				t.Errorf("%d bytes", x.memory())
			}
		}
		fuzzTalk(t, turns, seed)
	})
}
