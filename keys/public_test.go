package keys

import (
	"encoding/json"
	"fmt"
	"testing"
)

func TestPublicText(t *testing.T) {
	k := mustNew(t).Public()
	s := k.String()
	if len(s) != 44 || k.Short() != s[:8] || fmt.Sprint(k) != s {
		t.Errorf("String %q, Short %q, printed %v", s, k.Short(), k)
	}
	got, err := ParsePublic(s)
	if err != nil || got != k || PublicFrom(k.Bytes()) != k {
		t.Errorf("%s became %s, %v", k, got, err)
	}
	var zero Public
	if zero.String() != "" || zero.Short() != "" || !zero.IsZero() || k.IsZero() {
		t.Error("no key prints as something, or IsZero is wrong")
	}
}

func TestPublicJSON(t *testing.T) {
	type message struct {
		Key  Public            `json:"key"`
		None Public            `json:"none"`
		By   map[Public]string `json:"by"`
	}
	k := mustNew(t).Public()
	b, err := json.Marshal(message{Key: k, By: map[Public]string{k: "laptop"}})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"key":%q,"none":"","by":{%q:"laptop"}}`, k, k)
	if string(b) != want {
		t.Errorf("JSON %s, want %s", b, want)
	}
	got := message{None: k} // must be overwritten
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Key != k || !got.None.IsZero() || got.By[k] != "laptop" {
		t.Errorf("came back as %+v", got)
	}
	keep := message{Key: k}
	if err := json.Unmarshal([]byte(`{"key":"AAAA"}`), &keep); err == nil || keep.Key != k {
		t.Errorf("a bad key gave %v, %v", keep.Key, err)
	}
}

func FuzzParsePublic(f *testing.F) {
	f.Add("")
	f.Add("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParsePublic(s)
		if err == nil && k.String() != s {
			t.Errorf("%q was read as %q: two spellings of one key", s, k)
		}
	})
}

func ExampleParsePublic() {
	key, err := ParsePublic("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
	fmt.Println(key, key.Short(), err)
	_, err = ParsePublic("laptop")
	fmt.Println(err)
	// Output:
	// hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= hSDwCYkw <nil>
	// public key has 6 characters; a key is 44 characters of base64
}
