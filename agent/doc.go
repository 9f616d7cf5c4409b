// Package agent publishes local services through an edge.
//
//	dir, err := statedir.Open(path)
//	joined, err := agent.Join(ctx, dir, invite, agent.JoinOptions{Name: "laptop"})
//	err = agent.Run(ctx, agent.Config{
//		Dir: dir,
//		Tunnels: []agent.Tunnel{{Spec: tunnel.Spec{
//			Name: "app", Kind: tunnel.HTTP, Upstream: "http://127.0.0.1:8089",
//		}}},
//		Events: func(e agent.Event) { … },
//	})
//
// # One process per state directory
//
// A state directory has one WireGuard key, and an edge sends to whoever used
// a key last, so two processes with one key would cut each other off.
// Therefore one Run holds the directory's lock and the links: the owner. Any
// other Run is a guest: it hands its tunnels to the owner over a Unix socket,
// is told what happens to them, and withdraws them when it ends. When the
// owner ends, however it ends, a guest becomes the owner.
//
//	Run ─ lock agent.lock ─┬─ got it ── owner: links, forwarder, agent.sock
//	  ↑                    └─ locked ── guest: hand over through agent.sock
//	  └──────────── the owner ended ──────────┘
//
// # Ways through the package
//
// What the user wants is in a set (publish.go), which each link (link.go)
// shows to its edge, again after every reconnect. A visitor's connection
// reaches the forwarder (forward.go), which looks the destination up in the
// same set and dials the upstream (upstream.go) before it accepts. Nothing
// else can be reached through an agent, whatever the edge asks for.
package agent
