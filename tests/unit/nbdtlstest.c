/*
 * nbdtlstest.c: which certificates libvirt's NBD disks use
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <glib/gstdio.h>

#include "checkpoint_nbd_tls.h"

static void
testParse(void)
{
    static const struct {
        const gchar *text;
        gboolean byDefault;
        const gchar *dir;
        const gchar *secret;
    } cases[] = {
        {"", FALSE, "/none/qemu", NULL},
        {"#nbd_tls = 1\n# nbd_tls_x509_cert_dir = \"/x\"\n", FALSE, "/none/qemu", NULL},
        {"nbd_tls = 1\nnbd_tls_x509_cert_dir = \"/x y\" # why\n", TRUE, "/x y", NULL},
        {"  nbd_tls=0\nnbd_tls=1 # last\n", TRUE, "/none/qemu", NULL},
        {"default_tls_x509_cert_dir = \"/d\"\ndefault_tls_x509_secret_uuid = \"s\"\n",
         FALSE, "/d", "s"},
        {"default_tls_x509_cert_dir = \"/d\"\nnbd_tls_x509_cert_dir = \"/n\"\n"
         "nbd_tls_x509_secret_uuid = \"n\"\ndefault_tls_x509_secret_uuid = \"s\"\n",
         FALSE, "/n", "n"},
        {"nbd_tls_x509_cert_dir = \"/open\n", FALSE, "/none/qemu", NULL},
        {"nbd_tls_x509_verify = 1\n", FALSE, "/none/qemu", NULL},
    };
    guint i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(virCheckpointNbdTls) tls = {0};

        virCheckpointNbdTlsParse(cases[i].text, "/none", &tls);
        g_assert_cmpint(tls.byDefault, ==, cases[i].byDefault);
        g_assert_cmpstr(tls.dir, ==, cases[i].dir);
        g_assert_cmpstr(tls.secretUuid, ==, cases[i].secret);
    }
}

/* A folder of its own comes before what is common to all. */
static void
testOwnFolder(void)
{
    g_autofree gchar *pki = g_dir_make_tmp("pki-XXXXXX", NULL);
    g_autofree gchar *own = g_build_filename(pki, "libvirt-nbd", NULL);
    g_auto(virCheckpointNbdTls) tls = {0};

    g_assert_cmpint(g_mkdir(own, 0700), ==, 0);
    virCheckpointNbdTlsParse("default_tls_x509_cert_dir = \"/d\"\n", pki, &tls);
    g_assert_cmpstr(tls.dir, ==, own);
    g_rmdir(own);
    g_rmdir(pki);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd-tls/as-libvirt-reads-it", testParse);
    g_test_add_func("/nbd-tls/a-folder-of-its-own", testOwnFolder);
    return g_test_run();
}
