// Package certs gives the edge its certificates.
//
//	m, err := certs.New(certs.Config{
//		Mode: certs.Internal, Domain: "example.com", Storage: "/var/lib/wgexpose/certs",
//		Allowed: table.Has, Logger: log,
//	})
//	go m.Run(ctx)                                   // opens the storage, renews; blocks
//	err = m.Manage(ctx, "app.example.com")          // a certificate before the first visitor
//	ln := tls.NewListener(tcp, m.TLSConfig())
//
// Three modes. Internal is a certificate authority of the edge's own, whose
// root can vouch for the edge's domain and what is below it and for nothing
// else. ACME gets certificates from one or several public (or private) ACME
// authorities, for the domain with DNS-01 where Config.DNS is set. Off does
// nothing, for an edge behind another TLS proxy. Own certificates from files come
// before those of either.
//
// certmagic does the work: storage, locks, renewal, OCSP, ACME. It is used
// without its configurable globals, and in four ways of our own:
//
//   - Everything is made in Run, so that New does no I/O and starts nothing.
//   - A name gets a certificate only when Config.Allowed says that it is in the
//     tunnel table, and this is checked at one place that every order passes
//     (certmagic's cert_obtaining event), renewals included. Names that left
//     the table are dropped, so that nobody renews them for ever.
//   - Certificates wanted by a handshake are obtained by the same machinery as
//     those wanted by Manage, not by certmagic's OnDemand: that one takes
//     renewal away from the timer (Cache.RenewManagedCertificates skips
//     configurations with OnDemand), orders anew for each handshake while the
//     authority fails, and holds handshakes for up to three minutes.
//   - certmagic opens no listener: see openPlug.
//
// certmagic shares some maps between all its users in a process (challenges by
// name, jobs by name), so two Managers in one process need different names.
package certs
