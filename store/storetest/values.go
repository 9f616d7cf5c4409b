package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wgexpose/wgexpose/store"
)

func missingKey(h *harness) {
	h.wantMissing("a")
	if entries, rev := h.list(""); len(entries) != 0 || rev != 0 {
		h.Fatalf("a new store has %d entries at revision %d", len(entries), rev)
	}
	h.put("a/b", "1")
	h.wantMissing("a")
	h.wantMissing("a/")
	h.wantMissing("a/b/c")
	h.wantMissing("A/B")
}

func valuesComeBack(h *harness) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, value := range []string{"", "x", "null", "{}", string(all), strings.Repeat("long ", 20000)} {
		key := fmt.Sprintf("value/%d", i)
		rev := h.put(key, value)
		h.want(key, value, rev)
		rev = h.put(key, value+"!")
		h.want(key, value+"!", rev)
		rev = h.put(key, value)
		h.want(key, value, rev)
	}
}

func valuesAreCopies(h *harness) {
	// Among so many that a store does not keep them in one small piece.
	for i := range 10 {
		ops := make([]store.Op, 50)
		for j := range ops {
			ops[j] = set(fmt.Sprintf("more/%d/%d", i, j), strings.Repeat("more", 20))
		}
		h.commit(ops...)
	}
	value := []byte("mine")
	rev := h.commit(store.Op{Key: "a", Value: value})
	copy(value, "XXXX")
	h.want("a", "mine", rev)
	copy(h.get("a").Value, "YYYY")
	h.want("a", "mine", rev)
	entries, _ := h.list("a")
	copy(entries[0].Value, "ZZZZ")
	// A result that grows must not run into the store's memory either.
	_ = append(entries[0].Value, "ZZZZ"...)
	h.want("a", "mine", rev)
}

func oddKeys(h *harness) {
	keys := []string{"a", "a/", "/", "//", " ", "ä", "a b", "日本", "\u00a0", "a%2fb", "..", "~", strings.Repeat("k", store.MaxKey)}
	for _, key := range keys {
		h.put(key, "v:"+key)
	}
	entries, _ := h.list("")
	slices.Sort(keys)
	for i, key := range keys {
		if len(entries) != len(keys) || entries[i].Key != key || string(entries[i].Value) != "v:"+key {
			h.Fatalf("entry %d of %d is %q, want %q", i, len(entries), entries[i].Key, key)
		}
	}
}

func conditions(h *harness) {
	first := h.commit(store.Op{Key: "a", Value: []byte("1")})
	h.wantConflict("a", first, store.Op{Key: "a", Value: []byte("2")})
	h.wantConflict("a", first, store.Op{Key: "a", Value: []byte("2"), If: first + 1})
	h.wantConflict("b", 0, store.Op{Key: "b", Value: []byte("2"), If: first})
	h.want("a", "1", first)
	h.wantMissing("b")

	second := h.commit(store.Op{Key: "a", Value: []byte("2"), If: first})
	h.want("a", "2", second)
	h.wantConflict("a", second, store.Op{Key: "a", Value: []byte("3"), If: first})
	h.wantConflict("a", second, store.Delete("a", first))
	h.wantConflict("a", second, store.Delete("a", 0))
	third := h.commit(store.Op{Key: "a", Value: []byte("3"), Any: true})
	h.want("a", "3", third)

	h.commit(store.Delete("a", third))
	h.wantMissing("a")
	h.wantConflict("a", 0, store.Delete("a", third))
	h.wantConflict("a", 0, store.Op{Key: "a", Value: []byte("4"), If: third})
	// What is made anew must not be taken for what was there before.
	again := h.commit(store.Op{Key: "a", Value: []byte("1")})
	if again <= third {
		h.Fatalf("revision %d after %d", again, third)
	}
	h.wantConflict("a", again, store.Op{Key: "a", Value: []byte("x"), If: first})
	h.commit(store.Op{Key: "a", Any: true})
	h.wantMissing("a")
}

func checks(h *harness) {
	a := h.put("a", "1")
	b := h.commit(store.Check("a", a), store.Check("none", 0), set("b", "1"))
	h.want("a", "1", a)
	h.want("b", "1", b)
	h.wantMissing("none")
	h.wantConflict("a", a, set("c", "1"), store.Check("a", a+100))
	h.wantConflict("a", a, set("c", "1"), store.Check("a", 0))
	h.wantConflict("none", 0, set("c", "1"), store.Check("none", a))
	h.wantMissing("c")
	// Checks alone ask a question and change nothing.
	if rev := h.commit(store.Check("a", a)); rev != b {
		h.Fatalf("a check alone gives revision %d, want %d", rev, b)
	}
	h.wantConflict("a", a, store.Check("a", b))
}

func allOrNothing(h *harness) {
	a := h.put("a", "1")
	h.put("b", "1")
	before := h.state()
	h.wantConflict("z", 0, set("a", "2"), store.Delete("a2", 0), store.Op{Key: "b", Any: true}, set("c", "2"),
		store.Op{Key: "z", Value: []byte("2"), If: a})
	if after := h.state(); after != before {
		h.Fatalf("a failed commit has changed something: %s, was %s", after, before)
	}
	// The first in the order of the operations is named.
	h.wantConflict("y", 0, set("a", "2"), store.Op{Key: "y", If: a}, store.Op{Key: "b", Value: []byte("2")})

	rev := h.commit(set("a", "2"), store.Op{Key: "b", Any: true}, store.Op{Key: "c", Value: []byte("2")})
	h.want("a", "2", rev)
	h.want("c", "2", rev)
	h.wantMissing("b")
}

func invalidOps(h *harness) {
	h.put("a", "1")
	before := h.state()
	many := make([]store.Op, store.MaxOps+1)
	for i := range many {
		many[i] = set(fmt.Sprintf("many/%d", i), "1")
	}
	large := make([]store.Op, store.MaxCommit/store.MaxValue+1)
	for i := range large {
		large[i] = set(fmt.Sprintf("large/%d", i), strings.Repeat("x", store.MaxValue))
	}
	for name, ops := range map[string][]store.Op{
		"an empty key":               {set("", "1")},
		"a long key":                 {set(strings.Repeat("k", store.MaxKey+1), "1")},
		"a key that is not UTF-8":    {set("\xff", "1")},
		"a zero byte":                {set("a\x00b", "1")},
		"a line break":               {set("a\nb", "1")},
		"a key twice":                {set("b", "1"), set("c", "1"), set("b", "2")},
		"a key twice, once checked":  {store.Check("a", 1), set("a", "2")},
		"a large value":              {set("b", strings.Repeat("x", store.MaxValue+1))},
		"many operations":            many,
		"many bytes":                 large,
		"a check with a value":       {{Key: "b", Value: []byte("1"), Check: true}},
		"any revision and this one":  {{Key: "b", Value: []byte("1"), Any: true, If: 1}},
		"a check of any revision":    {{Key: "b", Any: true, Check: true}},
		"one bad one among good":     {set("b", "1"), set("", "1")},
		"a bad one under a conflict": {{Key: "a", Value: []byte("1")}, set("", "1")},
	} {
		if rev, err := h.store.Commit(h.ctx(), ops...); !errors.Is(err, store.ErrInvalid) {
			h.Errorf("%s: got revision %d, %v, want ErrInvalid", name, rev, err)
		}
	}
	if after := h.state(); after != before {
		h.Fatalf("an invalid commit has changed something: %s, was %s", after, before)
	}
	if _, err := h.store.Get(h.ctx(), "\xff"); !errors.Is(err, store.ErrInvalid) {
		h.Errorf("get of a key that cannot be: %v, want ErrInvalid", err)
	}
}

func limitsAreUsable(h *harness) {
	ops := make([]store.Op, store.MaxOps)
	for i := range ops {
		ops[i] = set(fmt.Sprintf("many/%04d", i), strings.Repeat("x", store.MaxCommit/store.MaxOps-len("many/0000")))
	}
	rev := h.commit(ops...)
	entries, _ := h.list("many/")
	if len(entries) != store.MaxOps || entries[store.MaxOps-1].Revision != rev {
		h.Fatalf("%d entries are there, want %d", len(entries), store.MaxOps)
	}
	large := bytes.Repeat([]byte("x"), store.MaxValue)
	h.put(strings.Repeat("k", store.MaxKey), string(large))
	h.reopen()
	if got := h.get(strings.Repeat("k", store.MaxKey)); !bytes.Equal(got.Value, large) {
		h.Fatalf("the largest value came back with %d bytes", len(got.Value))
	}
}

func list(h *harness) {
	for _, key := range []string{"b", "a/2", "a/10", "a", "a/1", "a0", "a/", "a/\u00ff", "c"} {
		h.put(key, "v"+key)
	}
	for prefix, want := range map[string][]string{
		"":       {"a", "a/", "a/1", "a/10", "a/2", "a/\u00ff", "a0", "b", "c"},
		"a":      {"a", "a/", "a/1", "a/10", "a/2", "a/\u00ff", "a0"},
		"a/":     {"a/", "a/1", "a/10", "a/2", "a/\u00ff"},
		"a/1":    {"a/1", "a/10"},
		"a/\xc3": {"a/\u00ff"}, // prefixes are bytes
		"c":      {"c"},
		"d":      nil,
		"a/1000": nil,
		"\xff":   nil,
	} {
		entries, rev := h.list(prefix)
		var got []string
		for _, e := range entries {
			if string(e.Value) != "v"+e.Key || e.Revision < 1 || e.Revision > rev {
				h.Errorf("%s is %q at revision %d of %d", e.Key, e.Value, e.Revision, rev)
			}
			got = append(got, e.Key)
		}
		if !slices.Equal(got, want) {
			h.Errorf("list %q: got %q, want %q", prefix, got, want)
		}
		if rev != 9 {
			h.Errorf("list %q is of revision %d, want 9", prefix, rev)
		}
	}
}

func revisions(h *harness) {
	var last store.Revision
	next := func(rev store.Revision) {
		h.Helper()
		if rev != last+1 || h.revision() != rev {
			h.Fatalf("revision %d, and the store's is %d, want %d", rev, h.revision(), last+1)
		}
		last = rev
	}
	same := func(rev store.Revision) {
		h.Helper()
		if rev != last || h.revision() != rev {
			h.Fatalf("revision %d, and the store's is %d, want %d still", rev, h.revision(), last)
		}
	}
	same(h.commit())
	same(h.commit(store.Op{Key: "a", Any: true}))
	next(h.put("a", "1"))
	next(h.put("a", "1"))
	same(h.commit(store.Delete("b", 0)))
	same(h.commit())
	next(h.commit(set("b", "1"), set("c", "1"), store.Op{Key: "a", Any: true}))
	h.wantConflict("b", last, store.Op{Key: "b", Value: []byte("x")})
	same(last)
	h.reopen()
	same(last)
	next(h.commit(store.Op{Key: "b", Any: true}, store.Op{Key: "c", Any: true}))
	h.reopen()
	same(last)
	next(h.put("a", "2"))
	h.want("a", "2", last)
}

func reopen(h *harness) {
	for i := range 300 {
		h.put(fmt.Sprintf("k/%d", i%100), fmt.Sprint(i))
		if i%7 == 0 {
			h.commit(store.Op{Key: fmt.Sprintf("k/%d", i%50), Any: true})
		}
	}
	before := h.state()
	for range 3 {
		h.reopen()
		if after := h.state(); after != before {
			h.Fatalf("after reopening: %s, was %s", after, before)
		}
	}
}
