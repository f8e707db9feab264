/*
 * storageargvtest.c: domain XML -> arguments of qemu-storage-daemon
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tests/qemuxml2argvdata has NAME.xml and what comes of it, NAME.args or, where that is
 * an error, NAME.err; NAME.headers has the headers of the images, a line each: path,
 * name and format of the image below.  VIR_CHECKPOINT_TEST_UPDATE=1 rewrites the
 * results and then fails.
 *
 * What is not an error is given to the real daemon, too, with images made for it.
 */

#include "config.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_json.h"
#include "checkpoint_monitor.h"
#include "checkpoint_process.h"
#include "checkpoint_storage_argv.h"
#include "checkpoint_storage_volume.h"

#define IMAGES "/images/"
#define PASSPHRASE "correct horse"

static gchar *
testPath(const gchar *name, const gchar *suffix)
{
    return g_strdup_printf("%s/../qemuxml2argvdata/%s%s", g_getenv("TEST_DATA"), name,
                           suffix);
}

/* Contents, or NULL if there is no such file. */
static gchar *
testRead(const gchar *name, const gchar *suffix)
{
    g_autofree gchar *path = testPath(name, suffix);
    gchar *text = NULL;

    g_file_get_contents(path, &text, NULL, NULL);
    return text;
}

/* A header is a line of @data; an image without one has none below it. */
static gboolean
testProbe(virCheckpointStorageLayer *layer,
          gchar **backing,
          gchar **format,
          gpointer data,
          GError **error)
{
    g_auto(GStrv) lines = g_strsplit(data ? data : "", "\n", -1);
    guint i;

    if (!layer->format)
        layer->format = g_strdup("raw");
    for (i = 0; lines[i]; i++) {
        g_auto(GStrv) parts = g_strsplit(lines[i], "\t", -1);

        if (g_strv_length(parts) != 3 || g_strcmp0(parts[0], layer->path) != 0)
            continue;
        *backing = g_strdup(parts[1]);
        *format = g_strdup(parts[2]);
    }
    return TRUE;
}

/* Pools as libvirt would show them. */
static gboolean
testLook(const gchar *pool,
         const gchar *volume,
         gchar **poolXml,
         gchar **path,
         virStorageVolType *type,
         gpointer data,
         GError **error)
{
    static const struct {
        const gchar *name;
        const gchar *xml;
    } pools[] = {
        {"default", "<pool type='dir'/>"},
        {"lvm", "<pool type='logical'/>"},
        {"ceph", "<pool type='rbd'/>"},
        {"iscsi", "<pool type='iscsi'><source><host name='example.com' port='6000'/>"
                  "<device path='iqn.2013-07.com.example:pool'/>"
                  "<auth type='chap' username='me'><secret usage='target'/></auth>"
                  "</source></pool>"},
    };
    guint i;

    for (i = 0; i < G_N_ELEMENTS(pools); i++) {
        if (g_str_equal(pools[i].name, pool))
            *poolXml = g_strdup(pools[i].xml);
    }
    g_assert_nonnull(*poolXml);
    *path = g_strconcat(IMAGES, volume, NULL);
    *type = g_str_equal(volume, "folder")  ? VIR_STORAGE_VOL_DIR
            : g_str_equal(pool, "default") ? VIR_STORAGE_VOL_FILE
                                           : VIR_STORAGE_VOL_BLOCK;
    return TRUE;
}

static GPtrArray *
testDisks(const gchar *name, GError **error)
{
    g_autofree gchar *given = testRead(name, ".xml");
    g_autofree gchar *headers = testRead(name, ".headers");
    g_autofree gchar *xml =
        virCheckpointStorageTranslate(given, NULL, testLook, NULL, error);
    g_autoptr(GPtrArray) disks =
        xml ? virCheckpointStorageDisks(xml, NULL, error) : NULL;
    gint fd = 10;
    guint i;
    guint j;

    if (!disks || !virCheckpointStorageComplete(disks, testProbe, headers, error))
        return NULL;
    for (i = 0; i < disks->len; i++) {
        const virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);

        for (j = 0; j < disk->layers->len; j++) {
            virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, j);

            if (layer->luks)
                layer->secretFd = fd++;
            if (layer->authOption)
                layer->auth.fd = fd++;
            if (g_strcmp0(layer->tls, "yes") == 0) {
                layer->tlsDir = g_strdup("/pki");
                layer->tlsKeyFd = fd++;
            }
        }
    }
    return g_steal_pointer(&disks);
}

/* One argument a line, as a shell would read them. */
static gchar *
testFormat(gchar **argv)
{
    GString *text = g_string_new("qemu-storage-daemon");
    guint i;

    for (i = 0; argv[i]; i++) {
        g_autofree gchar *quoted = g_shell_quote(argv[i]);

        if (g_str_has_prefix(argv[i], "--"))
            g_string_append_printf(text, " \\\n%s", argv[i]);
        else
            g_string_append_printf(text, " %s", quoted);
    }
    g_string_append_c(text, '\n');
    return g_string_free(text, FALSE);
}

static void
testCompare(const gchar *name, const gchar *suffix, const gchar *got)
{
    g_autofree gchar *path = testPath(name, suffix);
    g_autofree gchar *wanted = testRead(name, suffix);

    if (g_getenv("VIR_CHECKPOINT_TEST_UPDATE") && g_strcmp0(got, wanted) != 0) {
        g_assert_true(g_file_set_contents(path, got, -1, NULL));
        g_test_fail();
        return;
    }
    g_assert_cmpstr(got, ==, wanted);
}

static void
testGolden(gconstpointer data)
{
    const gchar *name = data;
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) disks = testDisks(name, &error);
    g_auto(GStrv) argv = NULL;
    g_auto(GStrv) readOnly = NULL;
    g_autofree gchar *text = NULL;
    guint i;

    if (!disks) {
        text = g_strconcat(error->message, "\n", NULL);
        g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED);
        testCompare(name, ".err", text);
        return;
    }
    argv = virCheckpointStorageArgv(disks, TRUE);
    text = testFormat(argv);
    testCompare(name, ".args", text);
    /* Read-only it is the same, but for that. */
    readOnly = virCheckpointStorageArgv(disks, FALSE);
    g_assert_cmpuint(g_strv_length(argv), ==, g_strv_length(readOnly));
    for (i = 0; argv[i]; i++) {
        g_autoptr(GString) changed = g_string_new(argv[i]);

        g_string_replace(changed, "\"read-only\":false", "\"read-only\":true", 0);
        g_assert_cmpstr(changed->str, ==, readOnly[i]);
    }
}

static void
testOnlyTheDisksAskedFor(void)
{
    g_autofree gchar *xml = testRead("unsupported-volume-rbd", ".xml");
    g_autoptr(GPtrArray) targets = g_ptr_array_new();
    g_autoptr(GPtrArray) disks = NULL;
    g_autoptr(GError) error = NULL;
    const virCheckpointStorageDisk *disk;

    g_ptr_array_add(targets, (gpointer) "vda");
    disks = virCheckpointStorageDisks(xml, targets, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(disks->len, ==, 1);
    disk = g_ptr_array_index(disks, 0);
    g_assert_cmpstr(disk->target, ==, "vda");
    g_assert_true(disk->complete);
    g_assert_false(virCheckpointStorageNeedsNetwork(disks));
}

/* The real daemon */

typedef struct TestPlace {
    gchar *dir;
    GPtrArray *undo; /* argv (gchar**) of what ends a helper */
    GArray *fds;
    gboolean skip;
} TestPlace;

static gboolean
testRun(gchar **output, const gchar *program, ...) G_GNUC_NULL_TERMINATED;

static gboolean
testRun(gchar **output, const gchar *program, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    const gchar *arg;
    gboolean done;
    va_list ap;

    g_ptr_array_add(argv, (gpointer)program);
    va_start(ap, program);
    while ((arg = va_arg(ap, const gchar *)))
        g_ptr_array_add(argv, (gpointer)arg);
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    done = virCheckpointProcessRun((const gchar *const *)argv->pdata, output, &error);
    if (!done)
        g_test_message("%s", error->message);
    return done;
}

static void
testLater(TestPlace *place, const gchar *program, const gchar *a, const gchar *b)
{
    gchar *argv[] = {g_strdup(program), g_strdup(a), g_strdup(b), NULL};

    g_ptr_array_add(place->undo, g_memdup2(argv, sizeof(argv)));
}

static void
testMakeImage(const virCheckpointStorageLayer *layer, const gchar *path)
{
    g_autofree gchar *folder = g_path_get_dirname(path);
    const gchar *format = layer->format ? layer->format : "raw";
    g_autofree gchar *image = g_strconcat("./", path + strlen(folder) + 1, NULL);
    const gchar *options = g_str_equal(format, "raw")
                               ? "key-secret=s,iter-time=10"
                               : "encrypt.format=luks,encrypt.key-secret=s,"
                                 "encrypt.iter-time=10";
    gboolean made = FALSE;
    guint attempt;

    if (g_file_test(path, G_FILE_TEST_EXISTS))
        return;
    g_assert_cmpint(g_mkdir_with_parents(folder, 0700), ==, 0);
    g_assert_cmpint(chdir(folder), ==, 0);
    /* On a busy machine QEMU 7.2 now and then fails to measure the key's cost. */
    for (attempt = 0; layer->luks && !made && attempt < 20; attempt++)
        made = testRun(NULL, "qemu-img", "create", "-q", "--object",
                       "secret,id=s,data=" PASSPHRASE, "-f",
                       g_str_equal(format, "raw") ? "luks" : format, "-o", options,
                       image, "1M", NULL);
    if (!layer->luks)
        made =
            testRun(NULL, "qemu-img", "create", "-q", "-f", format, image, "1M", NULL);
    g_assert_true(made);
}

static void
testMakeBlock(TestPlace *place, virCheckpointStorageLayer *layer, const gchar *path)
{
    g_autofree gchar *device = NULL;

    testMakeImage(layer, path);
    if (geteuid() != 0 || truncate(path, 4 * 1024 * 1024) < 0 ||
        !testRun(&device, "losetup", "--show", "-f", path, NULL)) {
        place->skip = TRUE;
        return;
    }
    g_free(layer->path);
    layer->path = g_strdup(g_strchomp(device));
    testLater(place, "losetup", "-d", layer->path);
}

static gchar *
testFreePort(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    guint port = 0;

    if (bind(fd, (struct sockaddr *)&address, length) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        port = ntohs(address.sin_port);
    close(fd);
    return g_strdup_printf("%u", port);
}

static void
testServe(TestPlace *place, virCheckpointStorageLayer *layer)
{
    g_autofree gchar *path = g_strconcat(place->dir, "/served", NULL);
    g_autofree gchar *pidFile = g_strconcat(place->dir, "/nbd.pid", NULL);
    g_autofree gchar *socketPath = g_strconcat(place->dir, "/nbd.sock", NULL);
    g_autofree gchar *pid = NULL;
    const gchar *name = layer->exportName ? layer->exportName : "";
    gboolean served;

    testMakeImage(layer, path);
    if (layer->host) {
        g_free(layer->host);
        g_free(layer->port);
        layer->host = g_strdup("127.0.0.1");
        layer->port = testFreePort();
        served = testRun(NULL, "qemu-nbd", "--fork", "-t", "-e", "4", "-f", "raw",
                         "--pid-file", pidFile, "-x", name, "-b", layer->host, "-p",
                         layer->port, path, NULL);
    } else {
        g_free(layer->path);
        layer->path = g_strdup(socketPath);
        served =
            testRun(NULL, "qemu-nbd", "--fork", "-t", "-e", "4", "-f", "raw",
                    "--pid-file", pidFile, "-x", name, "-k", socketPath, path, NULL);
    }
    g_assert_true(served);
    g_assert_true(g_file_get_contents(pidFile, &pid, NULL, NULL));
    testLater(place, "kill", "-TERM", g_strchomp(pid));
}

static void
testPassphrase(TestPlace *place, virCheckpointStorageLayer *layer)
{
    g_autofree gchar *text =
        g_base64_encode((const guchar *)PASSPHRASE, strlen(PASSPHRASE));
    int ends[2];

    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    g_assert_cmpint(write(ends[1], text, strlen(text)), ==, strlen(text));
    close(ends[1]);
    layer->secretFd = ends[0];
    g_array_append_val(place->fds, ends[0]);
}

/* Gives each layer an image of its kind, in a folder of ours. */
static void
testMakeLayers(TestPlace *place, GPtrArray *disks)
{
    guint i;
    guint j;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);

        for (j = 0; j < disk->layers->len; j++) {
            virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, j);
            g_autofree gchar *path = NULL;

            if (layer->luks)
                testPassphrase(place, layer);
            if (layer->type == VIR_CHECKPOINT_STORAGE_NBD) {
                testServe(place, layer);
                continue;
            }
            g_assert_true(g_str_has_prefix(layer->path, IMAGES));
            path = g_strconcat(place->dir, "/", layer->path + strlen(IMAGES), NULL);
            if (layer->type == VIR_CHECKPOINT_STORAGE_BLOCK) {
                testMakeBlock(place, layer, path);
                continue;
            }
            testMakeImage(layer, path);
            if (layer->slice)
                g_assert_cmpint(
                    truncate(path, (off_t)(layer->sliceOffset + layer->sliceSize)), ==,
                    0);
            g_free(layer->path);
            layer->path = g_steal_pointer(&path);
        }
    }
}

/* TRUE if it takes more than this host has. */
static gboolean
testIsElsewhere(GPtrArray *disks)
{
    guint i;
    guint j;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);

        for (j = 0; j < disk->layers->len; j++) {
            const virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, j);

            if (layer->type == VIR_CHECKPOINT_STORAGE_OPTIONS || layer->tlsDir ||
                (layer->slice && layer->type != VIR_CHECKPOINT_STORAGE_FILE))
                return TRUE;
        }
    }
    return FALSE;
}

/*
 * The options of what cannot be reached here: a name that no node may have is refused
 * after they were all understood, and before anything is opened.  A driver may be in a
 * package that is not installed.
 */
static void
testUnderstood(GPtrArray *disks)
{
    static const virCheckpointStorageDaemonOptions options;
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointMonitor) monitor =
        virCheckpointMonitorNewStorageDaemon(NULL, &options, &error);
    g_auto(GStrv) argv = virCheckpointStorageArgv(disks, TRUE);
    guint i;

    g_assert_no_error(error);
    for (i = 0; argv[i]; i++) {
        g_autoptr(virCheckpointJson) given = NULL;
        g_autoptr(virCheckpointJson) reply = NULL;
        virCheckpointJson *asked;
        g_autoptr(GError) refused = NULL;
        gsize j;

        if (!g_str_equal(argv[i], "--blockdev"))
            continue;
        given = virCheckpointJsonParse(argv[i + 1], -1, NULL);
        /* What is above those is like everywhere else. */
        if (virCheckpointJsonGet(given, "file"))
            continue;
        asked = virCheckpointJsonNewObject();
        for (j = 0; j < virCheckpointJsonLength(given); j++) {
            const gchar *key = virCheckpointJsonKey(given, j);

            if (g_str_equal(key, "node-name"))
                virCheckpointJsonAddString(asked, key, "0 bad");
            else
                virCheckpointJsonAdd(
                    asked, key,
                    virCheckpointJsonCopy(virCheckpointJsonMember(given, j)));
        }
        reply = virCheckpointMonitorRun(monitor, "blockdev-add", asked, &refused);
        g_assert_null(reply);
        g_test_message("%s: %s", argv[i + 1], refused->message);
        g_assert_true(strstr(refused->message, "Invalid node-name: '0 bad'") ||
                      strstr(refused->message, "Unknown driver"));
    }
}

static void
testAcceptOnce(TestPlace *place, GPtrArray *disks)
{
    virCheckpointStorageDaemonOptions options = {
        .fds = (const int *)(gpointer)place->fds->data,
        .fdCount = place->fds->len,
        .network = virCheckpointStorageNeedsNetwork(disks),
    };
    g_auto(GStrv) argv = virCheckpointStorageArgv(disks, TRUE);
    g_autoptr(virCheckpointMonitor) monitor = NULL;
    g_autoptr(virCheckpointJson) nodes = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree gchar *text = NULL;
    guint i;

    monitor = virCheckpointMonitorNewStorageDaemon((const gchar *const *)argv, &options,
                                                   &error);
    g_assert_no_error(error);
    nodes = virCheckpointMonitorRun(monitor, "query-named-block-nodes", NULL, &error);
    g_assert_no_error(error);
    text = virCheckpointJsonFormat(nodes);
    for (i = 0; i < disks->len; i++) {
        const virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);

        g_assert_nonnull(strstr(text, disk->node));
    }
}

static void
testAccepted(gconstpointer data)
{
    TestPlace place = {0};
    g_autoptr(GPtrArray) disks = testDisks(data, NULL);
    guint i;

    if (testIsElsewhere(disks)) {
        testUnderstood(disks);
        return;
    }
    place.dir = g_dir_make_tmp("storageargv-XXXXXX", NULL);
    place.undo = g_ptr_array_new();
    place.fds = g_array_new(FALSE, FALSE, sizeof(int));
    testMakeLayers(&place, disks);
    if (place.skip) {
        g_test_skip("block devices take root and losetup");
    } else {
        testAcceptOnce(&place, disks);
    }
    for (i = 0; i < place.undo->len; i++) {
        gchar **argv = g_ptr_array_index(place.undo, i);

        testRun(NULL, argv[0], argv[1], argv[2], NULL);
        g_strfreev(argv);
    }
    for (i = 0; i < place.fds->len; i++)
        close(g_array_index(place.fds, int, i));
    g_assert_cmpint(chdir("/"), ==, 0);
    testRun(NULL, "rm", "-rf", place.dir, NULL);
    g_ptr_array_unref(place.undo);
    g_array_unref(place.fds);
    g_free(place.dir);
}

static gint
testSort(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const gchar *const *)a, *(const gchar *const *)b);
}

int
main(int argc, char **argv)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree gchar *folder = NULL;
    g_autofree gchar *daemon = g_find_program_in_path("qemu-storage-daemon");
    g_autoptr(GDir) dir = NULL;
    const gchar *entry;
    guint i;

    g_test_init(&argc, &argv, NULL);
    folder = testPath("", "");
    g_assert_nonnull(dir = g_dir_open(folder, 0, NULL));
    while ((entry = g_dir_read_name(dir))) {
        if (g_str_has_suffix(entry, ".xml"))
            g_ptr_array_add(names, g_strndup(entry, strlen(entry) - strlen(".xml")));
    }
    g_ptr_array_sort(names, testSort);
    g_assert_cmpuint(names->len, >=, 30);
    for (i = 0; i < names->len; i++) {
        const gchar *name = g_ptr_array_index(names, i);
        g_autofree gchar *golden = g_strconcat("/storage-argv/golden/", name, NULL);
        g_autofree gchar *accepted = g_strconcat("/storage-argv/accepted/", name, NULL);

        g_test_add_data_func(golden, name, testGolden);
        if (daemon && !g_str_has_prefix(name, "unsupported-"))
            g_test_add_data_func(accepted, name, testAccepted);
    }
    g_test_add_func("/storage-argv/only-the-disks-asked-for", testOnlyTheDisksAskedFor);
    return g_test_run();
}
