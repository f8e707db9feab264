/*
 * storelib.h: a store in a throw-away folder, for tests
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef STORELIB_H
#define STORELIB_H

#include "checkpoint_store.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEST_UUID "11111111-2222-3333-4444-555555555555"

/** Returns: (transfer full): 32 times the hex digit @digit. */
static inline gchar *
testId(gchar digit)
{
    return g_strnfill(32, digit);
}

/** Returns: (transfer full): a ready checkpoint with a segment of vda. */
static inline virCheckpointRecord *
testRecord(gchar digit, const gchar *name, const gchar *sidecar)
{
    virCheckpointRecord *record = virCheckpointRecordNew();
    virCheckpointSegment *segment = virCheckpointSegmentNew("vda");

    record->id = testId(digit);
    record->state = VIR_CHECKPOINT_RECORD_READY;
    record->def = virCheckpointDefNew();
    record->def->name = g_strdup(name);
    record->def->creationTime = 1;
    if (sidecar)
        g_ptr_array_add(segment->sidecars, g_strdup(sidecar));
    g_ptr_array_add(record->segments, segment);
    return record;
}

/** Returns: (transfer full): a job of disk vda. */
static inline virCheckpointJobRecord *
testJob(gchar digit)
{
    virCheckpointJobRecord *job = virCheckpointJobRecordNew();

    job->id = testId(digit);
    job->target = g_strdup("vda");
    return job;
}

/** Returns: (transfer full): path of @name in the folder of the test's domain. */
static inline gchar *
testFile(const gchar *root, const gchar *name)
{
    return g_build_filename(root, TEST_UUID, name, NULL);
}

static inline gboolean
testHasFile(const gchar *root, const gchar *name)
{
    g_autofree gchar *path = testFile(root, name);

    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static inline void
testPutFile(const gchar *root, const gchar *name, const gchar *text)
{
    g_autofree gchar *path = testFile(root, name);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static inline void
testRemoveTree(const gchar *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const gchar *name = NULL;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree gchar *inner = g_build_filename(path, name, NULL);

        testRemoveTree(inner);
    }
    g_assert_cmpint(g_remove(path), ==, 0);
}

#endif
