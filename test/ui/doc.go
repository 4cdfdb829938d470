// Package ui tests the page of "kubectl netlatency ui" in a real browser.
package ui
