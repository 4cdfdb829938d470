package probe

// recent is a bounded map that forgets what was not asked for longest. It is
// here, and not a library's, because it must not allocate for a key that it
// knows or for one that takes the place of another.
type recent[K comparable, V any] struct {
	limit int
	byKey map[K]*entry[K, V]
	root  entry[K, V] // root.newer is the oldest entry, root.older the newest
}

type entry[K comparable, V any] struct {
	key          K
	value        V
	newer, older *entry[K, V]
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	r := &recent[K, V]{limit: limit, byKey: make(map[K]*entry[K, V])}
	r.root.newer, r.root.older = &r.root, &r.root
	return r
}

// get returns the value of key, the zero value if it is new, and makes it the
// newest. The pointer belongs to another key once this one is forgotten.
func (r *recent[K, V]) get(key K) *V {
	e := r.byKey[key]
	switch {
	case e != nil:
		e.unlink()
	case len(r.byKey) < r.limit:
		e = &entry[K, V]{key: key}
		r.byKey[key] = e
	default:
		e = r.root.newer
		e.unlink()
		delete(r.byKey, e.key)
		*e = entry[K, V]{key: key}
		r.byKey[key] = e
	}
	e.older, e.newer = r.root.older, &r.root
	e.older.newer, r.root.older = e, e
	return &e.value
}

func (e *entry[K, V]) unlink() {
	e.older.newer, e.newer.older = e.newer, e.older
}
