/*
 * qmptest.c: commands as they are sent, the rules, and the graph from saved replies
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The replies in qemudata were taken from QEMU 7.2 under libvirt 9.0.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_domain.h"
#include "checkpoint_error.h"
#include "checkpoint_qmp.h"

/* A peer that answers from a saved object, and keeps what it was sent. */
typedef struct TestPeer {
    virCheckpointJson *replies;
    GString *sent;
} TestPeer;

static gchar *
testPeerRun(gpointer data, const gchar *command, GError **error)
{
    TestPeer *peer = data;
    g_autoptr(virCheckpointJson) message = virCheckpointJsonParse(command, -1, error);
    const virCheckpointJson *reply;
    g_autoptr(virCheckpointJson) answer = NULL;

    g_assert_nonnull(message);
    g_string_append_printf(peer->sent, "%s\n", command);
    reply = virCheckpointJsonGet(peer->replies,
                                 virCheckpointJsonGetString(message, "execute"));
    if (!reply)
        return g_strdup(
            "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no such\"}}");
    answer = virCheckpointJsonBuild("a:return", virCheckpointJsonCopy(reply), NULL);
    return virCheckpointJsonFormat(answer);
}

static virCheckpointMonitor *
testMonitor(TestPeer *peer, const gchar *file)
{
    static const virCheckpointMonitorOps ops = {.run = testPeerRun};
    g_autofree gchar *path = NULL;
    g_autofree gchar *text = NULL;
    g_autoptr(GError) error = NULL;

    peer->sent = g_string_new(NULL);
    if (file) {
        path = g_build_filename(g_getenv("TEST_DATA"), "qemudata", file, NULL);
        g_file_get_contents(path, &text, NULL, &error);
        g_assert_no_error(error);
    }
    peer->replies =
        virCheckpointJsonParse(text ? text : "{\"transaction\":{}}", -1, &error);
    g_assert_no_error(error);
    return virCheckpointMonitorNew(&ops, peer, "test");
}

static void
testPeerClear(TestPeer *peer)
{
    virCheckpointJsonFree(peer->replies);
    g_string_free(peer->sent, TRUE);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(TestPeer, testPeerClear)

static void
testTransactionText(void)
{
    g_auto(TestPeer) peer = {0};
    g_autoptr(virCheckpointMonitor) monitor = testMonitor(&peer, NULL);
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    const virCheckpointBitmapRef ref = {"base", "old"};
    g_autoptr(GError) error = NULL;

    g_array_append_val(sources, ref);
    virCheckpointTxnAdd(txn, "top", "new", 65536, VIR_CHECKPOINT_BITMAP_PERSISTENT);
    virCheckpointTxnAdd(txn, "top", "set", 0, VIR_CHECKPOINT_BITMAP_DISABLED);
    virCheckpointTxnMerge(txn, "top", "set", sources);
    virCheckpointTxnDisable(txn, "top", "old");
    virCheckpointTxnRemove(txn, "top", "older");
    g_assert_cmpuint(virCheckpointTxnLength(txn), ==, 5);
    g_assert_true(virCheckpointTxnRun(txn, monitor, &error));
    g_assert_no_error(error);
    g_assert_cmpstr(
        peer.sent->str, ==,
        "{\"execute\":\"transaction\",\"arguments\":{\"actions\":["
        "{\"type\":\"block-dirty-bitmap-add\",\"data\":{\"node\":\"top\",\"name\":"
        "\"new\","
        "\"granularity\":65536,\"persistent\":true}},"
        "{\"type\":\"block-dirty-bitmap-add\",\"data\":{\"node\":\"top\",\"name\":"
        "\"set\","
        "\"disabled\":true}},"
        "{\"type\":\"block-dirty-bitmap-merge\",\"data\":{\"node\":\"top\","
        "\"target\":\"set\",\"bitmaps\":[{\"node\":\"base\",\"name\":\"old\"}]}},"
        "{\"type\":\"block-dirty-bitmap-disable\",\"data\":{\"node\":\"top\","
        "\"name\":\"old\"}},"
        "{\"type\":\"block-dirty-bitmap-remove\",\"data\":{\"node\":\"top\","
        "\"name\":\"older\"}}]}}\n");
    g_assert_cmpuint(virCheckpointTxnLength(txn), ==, 0);
}

static void
testNothingIsNotSent(void)
{
    g_auto(TestPeer) peer = {0};
    g_autoptr(virCheckpointMonitor) monitor = testMonitor(&peer, NULL);
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GArray) none = g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(GError) error = NULL;

    virCheckpointTxnMerge(txn, "top", "set", none);
    g_assert_cmpuint(virCheckpointTxnLength(txn), ==, 0);
    g_assert_true(virCheckpointTxnRun(txn, monitor, &error));
    g_assert_no_error(error);
    g_assert_cmpstr(peer.sent->str, ==, "");
}

static void
testRulesRefuse(void)
{
    static const struct {
        const gchar *command;
        const gchar *arguments;
        gboolean allowed;
    } cases[] = {
        {"block-dirty-bitmap-merge", "{\"node\":\"n\",\"target\":\"t\",\"bitmaps\":[]}",
         FALSE},
        {"block-dirty-bitmap-merge", "{\"node\":\"n\",\"target\":\"t\"}", FALSE},
        {"block-dirty-bitmap-merge", "{\"bitmaps\":[\"a\"]}", TRUE},
        {"block-dirty-bitmap-enable", "{\"node\":\"n\",\"name\":\"b\"}", FALSE},
        {"blockdev-set-active", "{\"active\":false}", FALSE},
        {"blockdev-reopen", "{\"options\":[]}", FALSE},
        {"migrate", "{\"uri\":\"exec:cat\"}", FALSE},
        {"migrate", "{\"uri\":\"fd:x\"}", TRUE},
        {"transaction",
         "{\"actions\":[{\"type\":\"block-dirty-bitmap-enable\",\"data\":{}}]}", FALSE},
        {"transaction",
         "{\"actions\":[{\"type\":\"block-dirty-bitmap-merge\",\"data\":{\"bitmaps\":[]"
         "}}]}",
         FALSE},
        {"transaction", "{\"actions\":[{\"data\":{}}]}", FALSE},
        {"transaction",
         "{\"actions\":[{\"type\":\"block-dirty-bitmap-add\",\"data\":{}}]}", TRUE},
        {"query-block", NULL, TRUE},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(TestPeer) peer = {0};
        g_autoptr(virCheckpointMonitor) monitor = testMonitor(&peer, NULL);
        g_autoptr(GError) error = NULL;
        g_autoptr(virCheckpointJson) reply = NULL;
        virCheckpointJson *arguments = NULL;

        if (cases[i].arguments)
            arguments = virCheckpointJsonParse(cases[i].arguments, -1, &error);
        g_assert_no_error(error);
        reply = virCheckpointMonitorRun(monitor, cases[i].command, arguments, &error);
        if (cases[i].allowed) {
            g_assert_cmpstr(peer.sent->str, !=, "");
        } else {
            g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR);
            g_assert_cmpstr(peer.sent->str, ==, "");
        }
        g_assert_true(virCheckpointMonitorAnswered(monitor));
    }
}

static void
testRefusalIsAnAnswer(void)
{
    g_auto(TestPeer) peer = {0};
    g_autoptr(virCheckpointMonitor) monitor = testMonitor(&peer, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_null(virCheckpointMonitorRun(monitor, "query-jobs", NULL, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_assert_cmpstr(error->message, ==, "query-jobs: no such");
    g_assert_true(virCheckpointMonitorAnswered(monitor));
}

static gchar *
testPeerGone(gpointer data, const gchar *command, GError **error)
{
    gboolean *gone = data;

    if (!*gone)
        return g_strdup("{\"return\":{}}");
    g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR, "gone");
    return NULL;
}

static void
testPeerEnd(gpointer data)
{
    gboolean *gone = data;

    *gone = TRUE;
}

static void
testBorrowedHasItsOwnEnd(void)
{
    static const virCheckpointMonitorOps ops = {.run = testPeerGone,
                                                .free = testPeerEnd};
    gboolean gone = TRUE;
    g_autoptr(virCheckpointMonitor) monitor = virCheckpointMonitorNew(&ops, &gone, "m");
    g_autoptr(virCheckpointMonitor) borrowed = virCheckpointMonitorBorrow(monitor);

    g_assert_false(virCheckpointMonitorDo(monitor, "query-jobs", NULL, NULL));
    g_assert_false(virCheckpointMonitorAnswered(monitor));
    gone = FALSE;
    g_assert_true(virCheckpointMonitorDo(borrowed, "query-jobs", NULL, NULL));
    g_assert_true(virCheckpointMonitorAnswered(borrowed));
    g_assert_false(virCheckpointMonitorAnswered(monitor));
    g_clear_pointer(&borrowed, virCheckpointMonitorFree);
    g_assert_false(gone);
    g_clear_pointer(&monitor, virCheckpointMonitorFree);
    g_assert_true(gone);
}

static virCheckpointGraph *
testGraph(const gchar *file)
{
    g_auto(TestPeer) peer = {0};
    g_autoptr(virCheckpointMonitor) monitor = testMonitor(&peer, file);
    g_autoptr(GError) error = NULL;
    virCheckpointGraph *graph = virCheckpointGraphQuery(monitor, &error);

    g_assert_no_error(error);
    return graph;
}

static void
testGraphPlain(void)
{
    g_autoptr(virCheckpointGraph) graph = testGraph("plain.json");
    const virCheckpointNode *top = virCheckpointGraphTop(graph, "virtio-disk0");
    const virCheckpointBitmapInfo *info;

    g_assert_cmpstr(top->name, ==, "libvirt-4-format");
    g_assert_cmpstr(top->driver, ==, "qcow2");
    g_assert_cmpstr(top->file, ==, "/images/cap1-0.qcow2");
    g_assert_cmpstr(top->child, ==, "libvirt-4-storage");
    g_assert_cmpuint(top->sizeBytes, ==, 64 * 1024 * 1024);
    g_assert_cmpuint(top->clusterSize, ==, 65536);
    g_assert_false(top->readOnly);
    g_assert_false(top->compatOld);
    g_assert_null(virCheckpointGraphBacking(graph, top));
    info = virCheckpointNodeBitmap(top, "virtcheckpoint.a");
    g_assert_true(info->recording && info->persistent);
    g_assert_false(info->busy || info->inconsistent);
    g_assert_null(virCheckpointNodeBitmap(top, "virtcheckpoint.b"));
    /* "virtio-disk1" must not be taken for "virtio-disk17". */
    g_assert_cmpstr(virCheckpointGraphTop(graph, "virtio-disk1")->name, ==,
                    "libvirt-3-format");
    g_assert_cmpstr(virCheckpointGraphTop(graph, "virtio-disk17")->driver, ==, "raw");
    g_assert_null(virCheckpointGraphTop(graph, "sata0-0-0"));
    g_assert_null(virCheckpointGraphTop(graph, NULL));
}

static void
testGraphChain(void)
{
    g_autoptr(virCheckpointGraph) graph = testGraph("chain.json");
    const virCheckpointNode *top = virCheckpointGraphTop(graph, "virtio-disk0");
    const virCheckpointNode *base = virCheckpointGraphBacking(graph, top);

    g_assert_cmpstr(top->name, ==, "libvirt-5-format");
    g_assert_cmpstr(base->name, ==, "libvirt-4-format");
    g_assert_true(base->readOnly);
    g_assert_cmpuint(virCheckpointNodeBitmap(top, "virtcheckpoint.a")->countBytes, ==,
                     524288);
    g_assert_true(virCheckpointGraphLayer(graph, top, "/images/cap1-0.qcow2") == base);
    g_assert_null(virCheckpointGraphLayer(graph, base, "/images/cap1-ov.qcow2"));
    g_assert_null(virCheckpointGraphLayer(graph, top, NULL));
}

static guint
testCommands(const TestPeer *peer)
{
    g_auto(GStrv) lines = g_strsplit(peer->sent->str, "\n", -1);

    return g_strv_length(lines) - 1;
}

/* Disks without layers take one question, and look as they do in the whole picture. */
static void
testGraphOfDisks(void)
{
    static const struct {
        const gchar *file;
        guint commands;
    } cases[] = {{"plain.json", 1}, {"chain.json", 4}, {"cor.json", 4}};
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(TestPeer) peer = {0};
        g_autoptr(virCheckpointMonitor) monitor = testMonitor(&peer, cases[i].file);
        g_autoptr(GError) error = NULL;
        g_autoptr(virCheckpointGraph) brief =
            virCheckpointGraphQueryDisks(monitor, &error);
        g_autoptr(virCheckpointGraph) whole = testGraph(cases[i].file);
        const virCheckpointNode *top = virCheckpointGraphTop(brief, "virtio-disk0");
        const virCheckpointNode *same = virCheckpointGraphTop(whole, "virtio-disk0");

        g_assert_no_error(error);
        g_assert_cmpuint(testCommands(&peer), ==, cases[i].commands);
        g_assert_cmpstr(top->name, ==, same->name);
        g_assert_cmpstr(top->driver, ==, same->driver);
        g_assert_cmpstr(top->file, ==, same->file);
        g_assert_cmpuint(top->sizeBytes, ==, same->sizeBytes);
        g_assert_cmpuint(top->clusterSize, ==, same->clusterSize);
        g_assert_cmpint(top->readOnly, ==, same->readOnly);
        g_assert_cmpint(top->compatOld, ==, same->compatOld);
        g_assert_cmpuint(top->bitmaps->len, ==, same->bitmaps->len);
        g_assert_true(!virCheckpointGraphBacking(brief, top) ==
                      !virCheckpointGraphBacking(whole, same));
    }
}

static void
testGraphSkipsFilters(void)
{
    g_autoptr(virCheckpointGraph) cor = testGraph("cor.json");
    g_autoptr(virCheckpointGraph) mirror = testGraph("mirror.json");
    const virCheckpointNode *top = virCheckpointGraphTop(cor, "virtio-disk0");

    g_assert_cmpstr(top->name, ==, "libvirt-1-format");
    top = virCheckpointGraphTop(mirror, "virtio-disk0");
    g_assert_cmpstr(top->name, ==, "libvirt-5-format");
    /* The job's own, nameless bitmap is left out. */
    g_assert_cmpuint(top->bitmaps->len, ==, 1);
}

static void
testDomainDisks(void)
{
    g_autofree gchar *path =
        g_build_filename(g_getenv("TEST_DATA"), "qemudata", "mirror.xml", NULL);
    g_autofree gchar *xml = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) disks = NULL;
    const virCheckpointDisk *disk;

    g_file_get_contents(path, &xml, NULL, &error);
    g_assert_no_error(error);
    disks = virCheckpointDomainParseDisks(xml, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(disks->len, ==, 4);
    disk = virCheckpointDomainFindDisk(disks, "vda");
    g_assert_cmpstr(disk->alias, ==, "virtio-disk0");
    g_assert_cmpstr(disk->source, ==, "/images/cap1-ov.qcow2");
    g_assert_cmpstr(disk->format, ==, "qcow2");
    g_assert_true(disk->mirrored);
    g_assert_true(virCheckpointDomainFindDisk(disks, disk->source) == disk);
    disk = virCheckpointDomainFindDisk(disks, "sda");
    g_assert_true(disk->readOnly && disk->empty && disk->cdromOrFloppy);
    g_assert_null(virCheckpointDomainFindDisk(disks, "vdz"));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/transaction-text", testTransactionText);
    g_test_add_func("/qmp/nothing-is-not-sent", testNothingIsNotSent);
    g_test_add_func("/qmp/rules-refuse", testRulesRefuse);
    g_test_add_func("/qmp/refusal-is-an-answer", testRefusalIsAnAnswer);
    g_test_add_func("/qmp/borrowed-has-its-own-end", testBorrowedHasItsOwnEnd);
    g_test_add_func("/nodes/plain", testGraphPlain);
    g_test_add_func("/nodes/chain", testGraphChain);
    g_test_add_func("/nodes/disks", testGraphOfDisks);
    g_test_add_func("/nodes/skips-filters", testGraphSkipsFilters);
    g_test_add_func("/domain/disks", testDomainDisks);
    return g_test_run();
}
