package listening

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Read is the table of now. It is false where it cannot be known.
func Read() (Table, bool) {
	v4, err := ask(unix.AF_INET)
	if err == nil {
		var v6 Table
		if v6, err = ask(unix.AF_INET6); err == nil {
			return append(v4, v6...), true
		}
	}
	return readFiles() // a sandbox may have no sock_diag
}

// readFiles is Read from the tables in /proc.
func readFiles() (Table, bool) {
	var out Table
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if os.IsNotExist(err) && name == "/proc/net/tcp6" {
			continue // no IPv6 in this kernel
		}
		if err != nil {
			return nil, false
		}
		more, err := parse(f)
		f.Close() // nothing was written
		if err != nil {
			return nil, false
		}
		out = append(out, more...)
	}
	return out, true
}

// Others names the ports that can be reached over loopback, with the programs that
// have them as far as this user may know, at most so many, and without those of
// this process: "3000 (node)". Ports that users choose come first.
func (t Table) Others(most int) []string {
	programs := make(map[string]string, len(t)) // by inode
	for _, s := range t {
		programs[s.inode] = ""
	}
	own := findPrograms(programs)
	type port struct {
		number  uint16
		program string
	}
	var ports []port
	for _, s := range t {
		if a := s.Addr.Addr(); own[s.inode] || !a.IsLoopback() && !a.IsUnspecified() {
			continue
		}
		p := port{s.Addr.Port(), programs[s.inode]}
		if !slices.ContainsFunc(ports, func(o port) bool { return o.number == p.number }) {
			ports = append(ports, p)
		}
	}
	rank := func(p port) int {
		switch {
		case p.program != "" && p.number >= 1024:
			return 0
		case p.program != "":
			return 1
		}
		return 2
	}
	slices.SortFunc(ports, func(a, b port) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.number, b.number))
	})
	var out []string
	for _, p := range ports[:min(most, len(ports))] {
		text := strconv.Itoa(int(p.number))
		if p.program != "" {
			text += fmt.Sprintf(" (%s)", p.program)
		}
		out = append(out, text)
	}
	return out
}

// findPrograms fills in the names of programs by the inodes of their sockets, and
// tells which are this process's. What another user runs stays without a name.
func findPrograms(byInode map[string]string) (own map[string]bool) {
	own = make(map[string]bool)
	dirs, err := filepath.Glob("/proc/[0-9]*/fd")
	if err != nil {
		return own
	}
	self := strconv.Itoa(os.Getpid())
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			continue // another user's, or it has ended
		}
		process := filepath.Base(filepath.Dir(dir))
		for _, f := range files {
			link, err := os.Readlink(filepath.Join(dir, f.Name()))
			if err != nil {
				continue
			}
			inode, ok := strings.CutPrefix(link, "socket:[")
			inode = strings.TrimSuffix(inode, "]")
			if _, wanted := byInode[inode]; !ok || !wanted {
				continue
			}
			own[inode] = own[inode] || process == self
			if name, err := os.ReadFile(filepath.Join("/proc", process, "comm")); err == nil {
				byInode[inode] = strings.TrimSpace(string(name))
			}
		}
	}
	return own
}
