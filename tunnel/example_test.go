package tunnel_test

import (
	"fmt"
	"log"
	"net/netip"

	"github.com/wgexpose/wgexpose/tunnel"
)

func ExampleOverlay() {
	overlay, err := tunnel.OverlayFrom(netip.MustParsePrefix("fd12:3456:789a::/48"))
	if err != nil {
		log.Fatal(err)
	}
	const edge, laptop tunnel.NodeID = 1, 4711

	to := overlay.TunnelAddr(laptop, 7)
	from := overlay.VisitorAddr(edge, netip.MustParseAddr("192.0.2.33"))
	fmt.Println(from, "->", to)

	node, kind, value, _ := overlay.Parse(to)
	visitor, _ := overlay.Visitor(from)
	fmt.Println(visitor, "->", node, kind == tunnel.KindTunnel, value)
	// Output:
	// 64:ff9b::c000:221 -> fd12:3456:789a:0:1267:1:0:7
	// 192.0.2.33 -> 4711 true 7
}

func ExampleParseUpstream() {
	for _, target := range []string{"8089", "https://nas.lan", "unix:///run/app.sock", "localhost", "http://localhost:80/app"} {
		u, err := tunnel.ParseUpstream(tunnel.HTTP, target)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(u, u.Network(), u.Address())
	}
	// Output:
	// http://127.0.0.1:8089 tcp 127.0.0.1:8089
	// https://nas.lan:443 tcp nas.lan:443
	// unix:/run/app.sock unix /run/app.sock
	// target "localhost": it has no port; write localhost:PORT
	// target "http://localhost:80/app": it has a path or a query; write it without, a visitor's path is passed on as it is
}

func ExampleTable() {
	table, err := tunnel.NewTable([]tunnel.Entry{
		{Spec: tunnel.Spec{ID: 7, Kind: tunnel.HTTP, Host: "app.example.com"}, Node: 4711, State: tunnel.Up},
		{Spec: tunnel.Spec{ID: 8, Kind: tunnel.TCP, Port: 20022}, Node: 4711, State: tunnel.Up},
	})
	if err != nil {
		log.Fatal(err)
	}
	app, _ := table.ByHost("App.Example.com.")
	ssh, _ := table.ByPort(20022)
	_, found := table.ByHost("other.example.com")
	fmt.Println(app.ID, ssh.ID, found)
	// Output: 7 8 false
}
