package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long nothing must happen to a file before it counts as written:
// editors and programs write in several steps.
const quiet = 100 * time.Millisecond

// fileWatch tells when files change: by being written, or replaced, as most
// editors do, or by the target of a link, as orchestrators do.
type fileWatch struct {
	changed chan struct{} // holds one
	files   []string      // absolute
	watcher *fsnotify.Watcher
	log     *slog.Logger
	done    sync.WaitGroup
}

// watchFiles begins. Where the system cannot tell of changes, the log says so.
func watchFiles(files []string, log *slog.Logger) *fileWatch {
	w := &fileWatch{changed: make(chan struct{}, 1), log: log}
	for _, f := range files {
		if abs, err := filepath.Abs(f); err == nil {
			f = abs
		}
		w.files = append(w.files, f)
	}
	var err error
	if w.watcher, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("changes of the configuration are not noticed; send SIGHUP after each", "err", err)
		return w
	}
	w.follow()
	w.done.Go(w.run)
	return w
}

// follow watches the directories of the files and of what they are links to: a
// file that is replaced is another one to the system.
func (w *fileWatch) follow() {
	for _, f := range w.files {
		dirs := []string{filepath.Dir(f)}
		if target, err := filepath.EvalSymlinks(f); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
		for _, dir := range dirs {
			if slices.Contains(w.watcher.WatchList(), dir) {
				continue
			}
			if err := w.watcher.Add(dir); err != nil {
				w.log.Warn("changes of the configuration are not noticed; send SIGHUP after each", "dir", dir, "err", err)
			}
		}
	}
}

// signature changes with the files, and not with others in their directories.
func (w *fileWatch) signature() string {
	var b strings.Builder
	for _, f := range w.files {
		target, err := filepath.EvalSymlinks(f)
		info, statErr := os.Stat(f)
		if err != nil || statErr != nil {
			b.WriteString("none\n")
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", target, info.Size(), info.ModTime().UnixNano())
	}
	return b.String()
}

func (w *fileWatch) run() {
	last := w.signature()
	timer := time.NewTimer(0) // something may have happened since the files were read
	defer timer.Stop()
	for {
		select {
		case _, open := <-w.watcher.Events:
			if !open {
				return
			}
			if now := w.signature(); now != last {
				last = now
				timer.Reset(quiet)
			}
		case err, open := <-w.watcher.Errors:
			if !open {
				return
			}
			w.log.Warn("watch the configuration", "err", err)
			timer.Reset(quiet) // events may be lost
		case <-timer.C:
			w.follow()
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

func (w *fileWatch) close() {
	if w.watcher == nil {
		return
	}
	if err := w.watcher.Close(); err != nil {
		w.log.Warn("end watching the configuration", "err", err)
	}
	w.done.Wait()
}
