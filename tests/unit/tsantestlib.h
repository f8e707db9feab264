/*
 * tsantestlib.h: threads that are behind each other, and what functions.txt lists
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#pragma once

#include <glib.h>
#include <string.h>

static gint testTold;

/* One thread behind the other in time, with nothing that would order their memory. */
static inline void
testTell(void)
{
    __atomic_add_fetch(&testTold, 1, __ATOMIC_RELAXED);
}

static inline void
testAwait(gint times)
{
    while (__atomic_load_n(&testTold, __ATOMIC_RELAXED) < times)
        g_usleep(100);
}

static inline void
testWithThread(GThreadFunc func, gpointer data, void (*meanwhile)(gpointer data))
{
    GThread *thread = g_thread_new("other", func, data);

    meanwhile(data);
    g_thread_join(thread);
}

/* Calls @func for each function that functions.txt has behind @keyword. */
static inline void
testForEachListed(const gchar *keyword, void (*func)(const gchar *name))
{
    g_autofree gchar *text = NULL;
    g_auto(GStrv) lines = NULL;
    guint count = 0;
    gsize i;

    g_assert_true(g_file_get_contents(g_getenv("TEST_WRAPPED"), &text, NULL, NULL));
    lines = g_strsplit(text, "\n", -1);
    for (i = 0; lines[i]; i++) {
        if (!g_str_has_prefix(lines[i], keyword))
            continue;
        count++;
        func(lines[i] + strlen(keyword));
    }
    g_assert_cmpuint(count, >, 0);
}
