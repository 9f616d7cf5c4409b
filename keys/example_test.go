package keys_test

import (
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/wgexpose/wgexpose/keys"
)

func ExampleLoadOrCreate() {
	dir, err := os.MkdirTemp("", "example-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	first, err := keys.LoadOrCreate(filepath.Join(dir, "agent.key"))
	if err != nil {
		log.Fatal(err)
	}
	again, err := keys.LoadOrCreate(filepath.Join(dir, "agent.key"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v %+v, the same: %v\n", first, again, first.Equal(again))
	// Output: [private key] [private key], the same: true
}

func ExampleParseInvite() {
	once, err := keys.New()
	if err != nil {
		log.Fatal(err)
	}
	edge, err := keys.New()
	if err != nil {
		log.Fatal(err)
	}
	token, err := keys.Invite{
		Key:     once,
		Node:    4711,
		Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Overlay: netip.MustParsePrefix("fd12:3456:789a::/48"),
		Edges: []keys.Edge{{Key: edge.Public(), Node: 1, Endpoints: []keys.Endpoint{
			{Kind: keys.EndpointUDP, Addr: "edge.example.com:51820"},
		}}},
	}.Encode()
	if err != nil {
		log.Fatal(err)
	}

	invite, err := keys.ParseInvite(token + "\n")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(invite.Key, invite.Node, invite.Expires.Format(time.DateOnly), invite.Edges[0].Endpoints[0].Addr)

	_, err = keys.ParseInvite(token[:len(token)-3])
	fmt.Println(err != nil)
	_, err = keys.ParseInvite("wgx2_AAAA")
	fmt.Println(err)
	// Output:
	// [private key] 4711 2030-01-02 edge.example.com:51820
	// true
	// the invite was made by a newer version of wgexpose (format 2): update wgexpose on this machine, then join again
}
