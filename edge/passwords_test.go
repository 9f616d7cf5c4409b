package edge

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/wgexpose/wgexpose/tunnel"
)

// Whoever guesses has one password hashed at a time, and keeps nobody else waiting.
func TestGuessesDoNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords()
		hashed, guesses := make(chan string), make(chan struct{})
		p.compare = func(_, password []byte) error {
			if string(password) != "secret" {
				<-guesses // as long as that takes
				return errors.New("wrong")
			}
			hashed <- string(password)
			return nil
		}
		credentials := []tunnel.Credential{{User: "me", Hash: "a hash"}}
		verdicts := make(chan verdict, 2*maxAsking)
		ask := func(from, user, password string) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://app.edge.test/", nil)
			r.RemoteAddr = from
			r.SetBasicAuth(user, password)
			go func() { verdicts <- p.check(r, credentials) }()
		}
		// From one /64, with names that exist and others.
		for i := range maxAsking + 10 {
			ask(fmt.Sprintf("[2001:db8::%x]:4711", i+1), []string{"me", "you"}[i%2], fmt.Sprint("guess ", i))
		}
		synctest.Wait()
		if n := len(verdicts); n != 10 {
			t.Fatalf("%d requests of one address beyond the bound were not checked, want 10", n)
		}
		for range 10 {
			if v := <-verdicts; v != unchecked {
				t.Errorf("beyond the bound: %v", v)
			}
		}

		for range 3 {
			ask("192.0.2.1:4711", "me", "secret")
		}
		<-hashed
		for range 3 {
			if v := <-verdicts; v != right { // the others need no hashing any more
				t.Errorf("beside guesses: %v", v)
			}
		}

		close(guesses)
		for range maxAsking {
			if v := <-verdicts; v != wrong {
				t.Errorf("a guess: %v", v)
			}
		}
		synctest.Wait()
		if len(p.asking) != 0 {
			t.Errorf("%d addresses are held after all was checked", len(p.asking))
		}
	})
}
